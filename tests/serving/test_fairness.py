"""Callers beside each other, on a simulated clock: whoever floods the queue harms nobody but itself."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.costs import CostModel
from serving.errors import CallerQueueFull, QueueFull, WouldMissDeadline
from serving.scheduler import Batch, Policy, Scheduler, Ticket

RATE = 1000.0  # tokens a second
LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=8)


def scheduler(**policy: float) -> Scheduler[str]:
    return Scheduler(
        policy=Policy(**policy),  # type: ignore[arg-type]  # ints and floats by name
        costs=CostModel(initial=RATE),
    )


def add(queue: Scheduler[str], caller: str, *lengths: int, now: float = 0.0) -> list[Ticket[str]]:
    return [queue.admit([(caller, n)], now=now, caller=caller)[0] for n in lengths]


def taken(queue: Scheduler[str], now: float = 0.0) -> Batch[str]:
    batch, _ = queue.take(now)
    assert batch is not None
    queue.finish(batch, seconds=batch.padded_tokens / RATE)
    return batch


def callers(batch: Batch[str]) -> list[str]:
    return [ticket.caller for ticket in batch.tickets]


def test_a_newcomer_rides_in_the_second_batch_however_much_waits() -> None:
    queue = scheduler(batch_items=1)
    add(queue, "flood", *[10] * 500)
    add(queue, "new", 10)
    assert [callers(taken(queue)) for _ in range(3)] == [["flood"], ["new"], ["flood"]]


def test_a_batch_is_shared_in_equal_parts_and_what_is_left_over_is_used() -> None:
    queue = scheduler(batch_tokens=120)
    add(queue, "flood", *[10] * 100)
    add(queue, "b", *[10] * 100)
    add(queue, "c", 10)
    assert Counter(callers(taken(queue))) == {"flood": 6, "b": 5, "c": 1}


def test_unlike_lengths_give_room_to_the_neighbour_first() -> None:
    """The flood is nearer in length, and would fill the batch alone."""
    queue = scheduler(batch_tokens=160, padding_tokens=20)
    add(queue, "flood", *[20] * 100)
    add(queue, "b", *[16] * 100)
    assert Counter(callers(taken(queue)))["b"] >= 3


def test_past_the_age_cap_callers_take_turns_too() -> None:
    queue = scheduler(batch_items=4, age_cap=1.0)
    add(queue, "flood", *[10] * 50)
    add(queue, "b", 11, 11, now=1.0)
    assert callers(taken(queue, now=5.0)) == ["flood", "b", "flood", "b"]


def test_a_lone_caller_fills_its_share_and_others_still_find_room() -> None:
    queue = scheduler(queue_tokens=1000, caller_share=0.5)
    add(queue, "flood", *[10] * 50)
    with pytest.raises(CallerQueueFull, match=r"500 tokens of this caller wait and 10 more would"):
        add(queue, "flood", 10)
    add(queue, "b", *[10] * 25)
    with pytest.raises(CallerQueueFull) as caught:
        add(queue, "b", 10)
    assert caught.value.retry_after
    add(queue, "c", 250)
    with pytest.raises(QueueFull, match="would pass the bound"):
        add(queue, "d", 10)


def test_who_has_nothing_waiting_may_bring_as_much_as_the_queue_holds() -> None:
    queue = scheduler(queue_tokens=1000, caller_share=0.5)
    queue.admit([("a", 500), ("a", 500)], now=0.0, caller="a")


def test_a_newcomer_is_not_refused_for_a_wait_that_is_not_its_own() -> None:
    queue = scheduler(batch_tokens=100)
    add(queue, "flood", *[50] * 100)
    with pytest.raises(WouldMissDeadline):
        queue.admit([("x", 10)], now=0.0, deadline=1.0, caller="flood")
    queue.admit([("x", 10)], now=0.0, deadline=1.0, caller="new")
    assert queue.predicted_wait(0.0) > 5
    assert queue.predicted_wait_of("new", 0.0) < 0.2


@given(st.lists(LENGTHS, min_size=2, max_size=5), st.integers(32, 512))
@settings(deadline=None)
def test_backlogged_callers_lead_equally_often(kinds: list[list[int]], budget: int) -> None:
    queue = scheduler(batch_tokens=budget, queue_tokens=10**6)
    for number, lengths in enumerate(kinds):
        add(queue, f"c{number}", *lengths * 40)
    leads: Counter[str] = Counter()
    for _ in range(4 * len(kinds)):
        batch = taken(queue)
        leads[batch.tickets[0].caller] += 1
        for ticket in batch.tickets:  # each sends on
            add(queue, ticket.caller, ticket.length)
    assert set(leads.values()) == {4}


@given(st.integers(1, 64), st.integers(2, 4), st.integers(64, 256), st.integers(1, 5))
@settings(deadline=None)
def test_callers_of_a_kind_get_equal_work_however_much_one_of_them_sends(
    length: int, count: int, budget: int, flood: int
) -> None:
    queue = scheduler(batch_tokens=budget, batch_items=16, queue_tokens=10**6)
    for number in range(count):
        add(queue, f"c{number}", *[length] * (16 * flood if number == 0 else 16))
    work: Counter[str] = Counter()
    for _ in range(3 * count):
        for ticket in taken(queue).tickets:
            work[ticket.caller] += 1
            add(queue, ticket.caller, length)
    assert len(set(work.values())) == 1


@given(st.lists(st.integers(1, 100), min_size=1, max_size=200), st.floats(0.2, 0.9))
def test_a_flood_of_calls_leaves_the_rest_of_the_queue_to_others(sizes: list[int], share: float) -> None:
    queue = scheduler(queue_tokens=1000, caller_share=share)
    for size in sizes:
        try:
            add(queue, "flood", size)
        except CallerQueueFull:
            continue
    assert queue.queued_tokens <= max(1000 * share, 100)
    add(queue, "new", math.floor(1000 * (1 - share)) if share < 0.9 else 99)


class Neighbours(RuleBasedStateMachine):
    """Random callers, arrivals, cancellations, deadlines and batches."""

    BOUND, SHARE, NAMES = 600, 0.5, "abcd"

    def __init__(self) -> None:
        super().__init__()
        self.queue = scheduler(queue_tokens=self.BOUND, batch_tokens=64, age_cap=0.5, caller_share=self.SHARE)
        self.now = 0.0
        self.waiting: list[Ticket[str]] = []
        self.computed: set[int] = set()
        self.since: Counter[str] = Counter()  # batches that others led while this caller waited

    def of(self, caller: str) -> list[Ticket[str]]:
        return [ticket for ticket in self.waiting if ticket.caller == caller]

    @rule(
        caller=st.sampled_from(NAMES),
        sizes=st.lists(st.integers(1, 64), min_size=1, max_size=4),
        patience=st.floats(0.001, 3) | st.just(math.inf),
    )
    def arrive(self, caller: str, sizes: list[int], patience: float) -> None:
        mine, all_of = sum(t.length for t in self.of(caller)), self.queue.queued_tokens
        jobs = [(caller, size) for size in sizes]
        try:
            tickets = self.queue.admit(jobs, now=self.now, deadline=self.now + patience, caller=caller)
        except CallerQueueFull:
            left = self.BOUND - all_of - sum(sizes)
            assert mine
            assert mine + sum(sizes) > left * self.SHARE / (1 - self.SHARE)
        except QueueFull:
            assert all_of + sum(sizes) > self.BOUND
        except WouldMissDeadline:
            assert self.queue.predicted_wait_of(caller, self.now, own=sum(sizes)) > 0
        else:
            assert not mine or mine + sum(sizes) <= self.BOUND * self.SHARE
            self.waiting += tickets

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.queue.cancel(ticket)
        self.waiting.remove(ticket)
        if not self.of(ticket.caller):
            self.since[ticket.caller] = 0  # whoever comes again stands last again

    @rule(seconds=st.floats(0.001, 1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(0.001, 1) | st.none())
    def run(self, seconds: float | None) -> None:
        batch, expired = self.queue.take(self.now)
        for ticket in expired:
            self.waiting.remove(ticket)
        if batch is None:
            assert not self.waiting
            return
        leader = batch.tickets[0]
        assert leader is self.of(leader.caller)[0], "the oldest of a caller leads"
        for ticket in batch.tickets:
            assert ticket.deadline > self.now, "nothing is computed for the dead"
            assert ticket.number not in self.computed, "nothing is computed twice"
            self.computed.add(ticket.number)
            self.waiting.remove(ticket)
        for caller in self.NAMES:
            self.since[caller] += 1
            if caller == leader.caller or not self.of(caller):
                self.since[caller] = 0
            assert self.since[caller] < len(self.NAMES), "whoever waits leads within one round"
        self.queue.finish(batch, seconds=seconds)
        self.now += seconds or 0.0

    @invariant()
    def the_books_are_right(self) -> None:
        for caller in [*self.NAMES, "nobody"]:
            tokens = sum(ticket.length for ticket in self.of(caller))
            assert self.queue._waiting.tokens_of(caller) == tokens
        assert self.queue.queued_items == len(self.waiting)
        assert self.queue.queued_tokens == sum(ticket.length for ticket in self.waiting) <= self.BOUND
        oldest = min((ticket.admitted for ticket in self.waiting), default=self.now)
        assert self.queue.oldest_age(self.now) == self.now - oldest

    def teardown(self) -> None:
        """What is left is taken in bounded time, and nothing is left in the books."""
        for _ in range(len(self.waiting) + 1):
            self.run(0.01)
        assert not self.waiting
        books = self.queue._waiting
        assert not any((books._lines, books._by_length, books._tokens))


TestNeighbours = Neighbours.TestCase
TestNeighbours.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
