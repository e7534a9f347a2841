"""Random schedules on a simulated clock: what the scheduler promises, whatever comes in which order."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.errors import CallerQueueFull, QueueFull, WouldMissDeadline
from serving.scheduler import MARGIN, Batch, Scheduler, State, Ticket
from tests.serving.test_scheduler import scheduler


class Schedules(RuleBasedStateMachine):
    """Random callers, arrivals, cancellations, deadlines, batches and workers; the clock may step back.

    The invariants hold after every step, and at the end whatever is left is taken in bounded time.
    """

    BOUND = 400

    @initialize(workers=st.integers(1, 3), share=st.sampled_from([0.3, 0.5, 1.0]))
    def begin(self, workers: int, share: float) -> None:
        self.queue: Scheduler[str] = scheduler(
            queue_tokens=self.BOUND, batch_tokens=64, age_cap=0.5, workers=workers, caller_share=share
        )
        self.workers, self.now = workers, 0.0
        self.waiting: list[Ticket[str]] = []
        self.batches: list[Batch[str]] = []
        self.fate: dict[int, str] = {}  # how each ticket ended: exactly one way
        self.turns: dict[str, int] = {}  # batches begun since a caller that waits last led one

    def ended(self, ticket: Ticket[str], how: str) -> None:
        assert ticket.number not in self.fate, f"{self.fate.get(ticket.number)}, then {how}"
        self.fate[ticket.number] = how
        self.waiting.remove(ticket)
        if not any(other.caller == ticket.caller for other in self.waiting):
            self.turns.pop(ticket.caller, None)

    @rule(
        sizes=st.lists(st.integers(1, 64), min_size=1, max_size=4),
        patience=st.floats(-0.5, 2) | st.just(math.inf),
        caller=st.sampled_from("abc"),
    )
    def arrive(self, sizes: list[int], patience: float, caller: str) -> None:
        before, deadline = self.queue.queued_tokens, self.now + patience
        try:
            jobs = [(str(size), size) for size in sizes]
            tickets = self.queue.admit(jobs, now=self.now, deadline=deadline, caller=caller)
        except CallerQueueFull:
            assert any(ticket.caller == caller for ticket in self.waiting), "who has nothing may begin"
        except QueueFull:
            assert before + sum(sizes) > self.BOUND
        except WouldMissDeadline:
            assert self.queue.predicted_wait(self.now) > 0 or deadline < self.now
        else:
            assert deadline >= self.now, "what is too late already is never accepted"
            assert [ticket.length for ticket in tickets] == sizes, "in the order of the call"
            self.waiting += tickets
            self.turns.setdefault(caller, 0)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.queue.cancel(ticket)
        assert not self.queue.cancel(ticket), "once"
        self.ended(ticket, "cancelled")

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def cancel_what_runs(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        assert not self.queue.cancel(batch.tickets[0]), "its neighbours go on"

    @rule(seconds=st.floats(-0.2, 1))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.batches) < self.workers)
    @rule()
    def take(self) -> None:
        callers = {ticket.caller for ticket in self.waiting}
        batch, expired = self.queue.take(self.now)
        for ticket in expired:
            alone = MARGIN * ticket.length / self.queue._costs.rate(ticket.length)
            assert ticket.deadline < self.now + alone, "it could not have been done in time"
            self.ended(ticket, "expired")
        if batch is None:
            assert not self.waiting
            return
        leader = batch.tickets[0]
        own = [ticket for ticket in self.waiting if ticket.caller == leader.caller]
        assert leader is own[0], "the oldest of the caller whose turn it is"
        for ticket in batch.tickets:
            assert ticket.deadline > self.now, "nothing is computed for the dead"
            self.ended(ticket, "computed")
        rate = self.queue._costs.rate(batch.longest)
        due = min(ticket.deadline for ticket in batch.tickets)
        in_time = self.now + MARGIN * batch.tokens / rate <= due
        assert in_time or len(batch.tickets) == 1, "nobody comes too late for another"
        self.batches.append(batch)
        for caller in self.turns:
            self.turns[caller] = 0 if caller == leader.caller else self.turns[caller] + 1
            assert self.turns[caller] <= 2 * len(callers | set("abc")), "nobody starves"

    @precondition(lambda self: self.batches)
    @rule(seconds=st.floats(0.001, 1) | st.none(), data=st.data())
    def finish(self, seconds: float | None, data: st.DataObject) -> None:
        self.done(data.draw(st.sampled_from(self.batches)), seconds)

    def done(self, batch: Batch[str], seconds: float | None) -> None:
        self.queue.finish(batch, seconds=seconds)
        self.now += seconds or 0.0
        self.batches.remove(batch)

    @rule()
    def clear(self) -> None:
        for ticket in self.queue.clear():
            self.ended(ticket, "closed")
        assert not self.waiting

    @invariant()
    def the_queue_counts_what_waits(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.queued_items == len(self.waiting)
        assert self.queue.queued_tokens == sum(ticket.length for ticket in self.waiting) <= self.BOUND
        assert all(ticket.state is State.QUEUED for ticket in self.waiting)
        wait = self.queue.predicted_wait(self.now)
        assert 0 <= wait < math.inf
        for caller in "abc":
            assert 0 <= self.queue.predicted_wait_of(caller, self.now) <= wait + 1e-9

    def teardown(self) -> None:
        """Every batch takes at least one ticket: what is left is gone after as many."""
        if not hasattr(self, "queue"):
            return
        for _ in range(len(self.waiting) + 1):
            for batch in list(self.batches):
                self.done(batch, 0.01)
            self.take()
        assert not self.waiting


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
