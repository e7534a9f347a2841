"""The scheduler as a pure machine: rules one by one, then random schedules on a simulated clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.costs import CostModel
from serving.errors import QueueFull, WouldMissDeadline
from serving.scheduler import LONGEST_RETRY, SHORTEST_RETRY, Batch, Policy, Scheduler, Ticket

RATE = 1000.0  # tokens a second


def scheduler(**policy: float) -> Scheduler[str]:
    costs = CostModel(initial=RATE)
    return Scheduler(policy=Policy(**policy), costs=costs)  # type: ignore[arg-type]  # ints and floats by name


def add(
    queue: Scheduler[str], *lengths: int, now: float = 0.0, deadline: float = math.inf
) -> list[Ticket[str]]:
    return [queue.admit([(str(n), n)], now=now, deadline=deadline)[0] for n in lengths]


def lengths(batch: Batch[str] | None) -> list[int]:
    return [] if batch is None else [ticket.length for ticket in batch.tickets]


def test_an_empty_queue_gives_no_batch() -> None:
    assert scheduler().take(0.0) == (None, [])


def test_the_oldest_rides_with_its_nearest_lengths() -> None:
    queue = scheduler(batch_tokens=60, padding_tokens=2)
    add(queue, 10, 3, 11, 9, 30)
    batch, _ = queue.take(0.0)
    assert lengths(batch) == [10, 11, 9]
    assert batch is not None
    assert batch.close_reason == "padding"


def test_a_batch_closes_at_the_budget_of_padded_tokens() -> None:
    queue = scheduler(batch_tokens=40)
    add(queue, 10, 10, 10, 10, 10)
    batch, _ = queue.take(0.0)
    assert lengths(batch) == [10] * 4
    assert batch is not None
    assert (batch.close_reason, batch.padded_tokens) == ("budget", 40)


def test_a_batch_closes_at_the_number_of_items() -> None:
    queue = scheduler(batch_items=2)
    add(queue, 5, 5, 5)
    batch, _ = queue.take(0.0)
    assert batch is not None
    assert (lengths(batch), batch.close_reason) == ([5, 5], "items")


def test_a_lone_item_above_the_budget_still_rides() -> None:
    queue = scheduler(batch_tokens=16)
    add(queue, 100)
    batch, _ = queue.take(0.0)
    assert batch is not None
    assert (lengths(batch), batch.close_reason) == ([100], "drained")


def test_past_the_age_cap_the_batch_is_filled_by_age() -> None:
    young, old = (scheduler(batch_tokens=30, batch_items=2, age_cap=1.0) for _ in range(2))
    for queue in (young, old):
        add(queue, 10, 11, 10)
    assert lengths(young.take(0.5)[0]) == [10, 10]
    assert lengths(old.take(1.5)[0]) == [10, 11]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = scheduler(queue_tokens=100)
    add(queue, 60)
    with pytest.raises(QueueFull, match=r"60 tokens wait and 50 more would pass the bound of 100") as caught:
        add(queue, 50)
    assert caught.value.retry_after is not None
    assert SHORTEST_RETRY <= caught.value.retry_after <= LONGEST_RETRY


def test_all_jobs_are_admitted_or_none() -> None:
    queue = scheduler(queue_tokens=100)
    with pytest.raises(QueueFull):
        queue.admit([("a", 60), ("b", 60)], now=0.0)
    assert (queue.queued_items, queue.queued_tokens) == (0, 0)


def test_a_wait_longer_than_the_deadline_is_refused() -> None:
    queue = scheduler()
    add(queue, 500)
    with pytest.raises(WouldMissDeadline, match="predicted wait"):
        add(queue, 10, deadline=0.4)
    add(queue, 10, deadline=0.6)


def test_the_running_batch_counts_as_wait_until_it_should_be_done() -> None:
    queue = scheduler()
    add(queue, 500)
    batch, _ = queue.take(0.0)
    assert queue.predicted_wait(0.1) == pytest.approx(0.4)
    assert queue.predicted_wait(9.0) == 0.0
    assert batch is not None
    queue.finish(batch, seconds=None)
    assert queue.predicted_wait(0.1) == 0.0


def test_an_idle_engine_takes_what_looks_too_slow_so_that_it_can_learn() -> None:
    queue = scheduler()
    add(queue, 5000, deadline=0.1)
    batch, _ = queue.take(0.0)
    assert batch is not None
    queue.finish(batch, seconds=0.01)
    assert queue.predicted_wait(1.0) == 0.0
    add(queue, 5000, now=1.0)
    assert queue.predicted_wait(1.0) == pytest.approx(0.01)


def test_a_cancelled_ticket_leaves_the_queue_at_once() -> None:
    queue = scheduler()
    first, second = add(queue, 5, 7)
    assert queue.cancel(first)
    assert not queue.cancel(first)
    assert queue.queued_tokens == 7
    batch, _ = queue.take(0.0)
    assert batch is not None
    assert batch.tickets == (second,)
    assert not queue.cancel(second)


def test_an_expired_ticket_is_dropped_and_named() -> None:
    queue = scheduler()
    [late] = add(queue, 5, deadline=1.0)
    [timely] = add(queue, 5, deadline=3.0)
    batch, expired = queue.take(2.0)
    assert expired == [late]
    assert batch is not None
    assert batch.tickets == (timely,)


def test_what_cannot_be_done_in_time_even_alone_is_not_computed() -> None:
    queue = scheduler()
    [doomed] = add(queue, 100, deadline=0.12)
    [timely] = add(queue, 10, deadline=1.0)
    batch, expired = queue.take(0.0)
    assert expired == [doomed], "0.1 s in the mean, 0.13 s at most"
    assert lengths(batch) == [10]
    assert not queue.cancel(doomed)
    [last] = add(queue, 100, now=0.1, deadline=0.2)
    batch, expired = queue.take(0.1)
    assert expired == []
    assert batch is not None
    assert batch.tickets == (last,), "the only one may try, so that a wrong prediction is corrected"
    assert timely not in batch.tickets


@pytest.mark.parametrize("age_cap", [1.0, -1.0], ids=["by length", "by age"])
def test_a_batch_grows_no_further_than_the_deadlines_in_it_allow(age_cap: float) -> None:
    queue = scheduler(age_cap=age_cap)
    add(queue, 10, 10, deadline=0.05)
    add(queue, 10, 10, 10)
    batch, _ = queue.take(0.0)
    assert lengths(batch) == [10, 10, 10], "39 ms at most; with a fourth 52"
    queue = scheduler(age_cap=age_cap)
    add(queue, 10, 10, 10)
    [hasty] = add(queue, 10, deadline=0.05)
    add(queue, 10)
    batch, _ = queue.take(0.0)
    assert batch is not None
    assert (lengths(batch), hasty in batch.tickets) == ([10] * 4, False), (
        "nor does it take one it would be late for"
    )


def test_where_waits_exceed_what_was_predicted_less_is_let_in() -> None:
    queue = scheduler()
    for turn in range(40):  # the engine takes three times what it is thought to
        began = 3.0 * turn
        batches = []
        for wait in (0.0, 0.1):
            [ticket] = add(queue, 100, now=began)
            assert ticket.predicted == pytest.approx(wait)
            batches.append(queue.take(began + 3 * wait)[0])
        for batch in batches:
            assert batch is not None
            queue.finish(batch, seconds=None)
    add(queue, 100, now=200.0)
    with pytest.raises(WouldMissDeadline):
        add(queue, 10, now=200.0, deadline=200.25)
    add(queue, 10, now=200.0, deadline=200.5)


def test_waiting_for_the_others_of_ones_own_call_stretches_nothing() -> None:
    queue = scheduler(batch_tokens=100)
    for turn in range(40):
        add(queue, 100, now=float(turn))
        running, _ = queue.take(float(turn))
        queue.admit([("a", 100)] * 8, now=float(turn))
        for place in range(1, 9):
            assert running is not None
            queue.finish(running, seconds=0.1)
            running, _ = queue.take(turn + 0.1 * place)
        assert running is not None
        queue.finish(running, seconds=0.1)
    assert queue._stretch.factor == 1.0


def test_clear_gives_back_everything_that_waits() -> None:
    queue = scheduler()
    waiting = add(queue, 5, 6)
    assert queue.clear() == waiting
    assert queue.take(0.0) == (None, [])


def test_the_age_of_the_oldest() -> None:
    queue = scheduler()
    assert queue.oldest_age(5.0) == 0.0
    add(queue, 5, 5, now=1.0)
    assert queue.oldest_age(5.0) == 4.0


def test_deadlines_of_answered_items_do_not_pile_up() -> None:
    queue = scheduler(batch_items=1)
    for step in range(2000):
        add(queue, 5, now=float(step), deadline=1e9)
        batch, _ = queue.take(float(step))
        assert batch is not None
        queue.finish(batch, seconds=0.005)
    assert len(queue._waiting._by_deadline) < 600


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(16, 600), st.integers(0, 90))
def test_every_batch_keeps_the_budget_and_nobody_brings_too_much_padding(
    sizes: list[int], budget: int, padding: int
) -> None:
    queue = scheduler(batch_tokens=budget, padding_tokens=padding, queue_tokens=10**6)
    add(queue, *sizes)
    left = len(sizes)
    while (batch := queue.take(0.0)[0]) is not None:
        oldest = min(ticket.number for ticket in batch.tickets)
        assert batch.tickets[0].number == oldest
        if len(batch.tickets) > 1:
            assert batch.padded_tokens <= budget
            assert batch.padded_tokens - batch.tokens <= padding * (len(batch.tickets) - 1)
        left -= len(batch.tickets)
        queue.finish(batch, seconds=0.1)
    assert left == 0


@given(st.integers(2, 8), st.lists(st.integers(1, 64), min_size=1, max_size=30))
def test_more_workers_mean_a_shorter_predicted_wait(workers: int, sizes: list[int]) -> None:
    one, many = scheduler(queue_tokens=10**6), scheduler(queue_tokens=10**6, workers=workers)
    for queue in (one, many):
        add(queue, *sizes)
    assert many.predicted_wait(0.0) == pytest.approx(one.predicted_wait(0.0) / workers)


def test_with_a_free_worker_only_the_queue_counts() -> None:
    queue = scheduler(workers=2, batch_items=1)
    add(queue, 500, 300, 100)
    first, _ = queue.take(0.0)
    assert queue.predicted_wait(0.0) == pytest.approx(0.2), "the second worker is free"
    second, _ = queue.take(0.0)
    assert queue.predicted_wait(0.1) == pytest.approx(min(0.4, 0.2) + 0.05)
    assert first is not None
    assert second is not None
    queue.finish(second, seconds=None)
    queue.finish(second, seconds=None)
    assert queue.predicted_wait(0.1) == pytest.approx(0.05)
