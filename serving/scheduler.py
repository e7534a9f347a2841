"""Who rides in the next batch, and who may wait at all: a pure machine with no thread, clock, gRPC or torch.

Its owner calls it under one lock and passes the time in. A ticket goes QUEUED → RUNNING, or QUEUED → GONE
(cancelled, or past its deadline); nothing that is GONE is ever put into a batch.

Batching is work-conserving: `take` is called when the engine is free, never by a timer, so an idle server
adds no wait. Callers take turns: a batch is the oldest ticket of the caller whose turn it is, plus those of
nearest length, as long as `longest · n` stays in the budget and none brings more padding than a batch of its
own would cost. Each caller
first has an equal part of the room, then whoever waits has the rest. With n callers waiting, each leads one
of any n batches, so nothing starves, neither for its length nor for its neighbours; past `age_cap` the rest
of the batch is filled by age too. Nothing is computed that would come too late: who cannot be done in time is
dropped, and a batch grows no further than the deadlines of those in it allow.

What one caller may have waiting is bounded by the room that is left, as shared-memory switches bound a port
(Choudhury and Hahne, Dynamic queue length thresholds, 1998): a lone caller fills `caller_share` of the queue,
more callers fill equal parts, and some room is always left for one who comes anew.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from serving.batches import Batch, Draft, Policy, State, Ticket
from serving.costs import CostModel, Stretch, bucket
from serving.errors import CallerQueueFull, QueueFull, WouldMissDeadline
from serving.waiting import Waiting

__all__ = ["LONGEST_RETRY", "SHORTEST_RETRY", "Batch", "Policy", "Scheduler", "State", "Ticket"]

P = TypeVar("P")

SHORTEST_RETRY, LONGEST_RETRY = 0.05, 10.0  # seconds; below is a busy loop, above a client has given up
MARGIN = 1.3  # times the mean that a batch may take: at the mean, half of those at the edge come too late
LOOKAHEAD = 256  # tickets that the age rule looks at: bounds the time under the lock


class Scheduler(Generic[P]):
    """The queue of one engine: bounded in tokens, aware of deadlines, filled and emptied by its owner.

    Several batches may run at once, one for each of the engine's workers.
    """

    def __init__(self, *, policy: Policy, costs: CostModel) -> None:
        self._policy, self._costs, self._stretch = policy, costs, Stretch()
        self._numbers = itertools.count()
        self._waiting: Waiting[P] = Waiting()
        self._busy_until: dict[Batch[P], float] = {}  # of each batch that runs

    @property
    def policy(self) -> Policy:
        """The numbers that it works by."""
        return self._policy

    @property
    def queued_items(self) -> int:
        """Tickets that wait."""
        return len(self._waiting)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        return self._waiting.tokens

    def oldest_age(self, now: float) -> float:
        """Seconds that the oldest ticket has waited; 0 when none waits."""
        oldest = self._waiting.oldest()
        return 0.0 if oldest is None else max(0.0, now - oldest.admitted)

    def predicted_wait(self, now: float) -> float:
        """Seconds until all that waits would have been taken: until a worker is free, then the queue."""
        return self._rest(now) + self._seconds(self._waiting.tokens_by_bucket)

    def predicted_wait_of(self, caller: str, now: float, *, own: int = 0) -> float:
        """Seconds until the last of `own` tokens that this caller brings now would be taken.

        What the caller has waiting comes first. Of every other caller it is as much, by the rule of turns,
        and at least one batch, if that much waits. All tokens count alike, at the mean cost of those that
        wait: this is asked for each admission, however many callers there are.
        """
        waiting = self._waiting
        if not waiting:
            return self._rest(now)
        mine = waiting.tokens_of(caller)
        before = mine + waiting.tokens_before(caller, max(mine + own, self._policy.batch_tokens))
        return self._rest(now) + self._seconds(waiting.tokens_by_bucket) * before / waiting.tokens

    def admit(
        self, jobs: Sequence[tuple[P, int]], *, now: float, deadline: float = math.inf, caller: str = ""
    ) -> list[Ticket[P]]:
        """Queue all jobs (payload, length ≥ 1) of a caller, or none of them; raises as `check`."""
        lengths = [length for _, length in jobs]
        wait = self.check(lengths, now=now, deadline=deadline, caller=caller)
        if len(lengths) > 1:  # each may wait for the others of its own call
            wait += self._costs.seconds(_tokens_by_bucket(lengths))
        tickets = [
            Ticket(next(self._numbers), payload, length, now, deadline, caller, wait)
            for payload, length in jobs
        ]
        for ticket in tickets:
            self._waiting.add(ticket)
        return tickets

    def check(
        self, lengths: Sequence[int], *, now: float, deadline: float = math.inf, caller: str = ""
    ) -> float:
        """Whether jobs of these lengths may wait, and for how many seconds in the mean; queues nothing.

        Raises `QueueFull` when their tokens would pass the bound, `CallerQueueFull` when they would pass the
        caller's part of it, and `WouldMissDeadline` when the predicted wait, stretched, and their own cost
        pass the deadline. An idle engine takes anything whose deadline is still to come: its prediction would
        otherwise never be corrected. Each error says when it is worth coming back.
        """
        tokens = sum(lengths)
        self._check_room(tokens, now, caller)
        wait = self.predicted_wait_of(caller, now, own=tokens)
        most = wait * self._stretch.factor
        own = self._costs.seconds(_tokens_by_bucket(lengths)) if wait else 0.0
        if now + most + own > deadline:
            raise WouldMissDeadline(
                f"the predicted wait of {most + own:.3f} s passes the remaining "
                f"{max(0.0, deadline - now):.3f} s; come back later or allow more time",
                retry_after=_retry(wait),
            )
        return wait

    def cancel(self, ticket: Ticket[P]) -> bool:
        """Take a ticket out of the queue; False when it is not queued (any more)."""
        if ticket.state is not State.QUEUED:
            return False
        self._waiting.remove(ticket, State.GONE)
        return True

    def take(self, now: float) -> tuple[Batch[P] | None, list[Ticket[P]]]:
        """The next batch (None: nothing waits), and the tickets dropped because their deadline has passed, or
        passes before they could be done.
        """
        expired = [*self._waiting.expire(now), *self._doomed(now)]
        for ticket in expired:
            self._stretch.observe(predicted=ticket.predicted, waited=math.inf)
        if not self._waiting:
            return None, expired
        draft: Draft[P] = Draft(self._policy, self._waiting.callers)
        self._fill(draft, now)
        for ticket in draft.tickets:
            self._waiting.remove(ticket, State.RUNNING)
            self._stretch.observe(predicted=ticket.predicted, waited=now - ticket.admitted)
        self._waiting.pass_turn(draft.tickets[0].caller)
        batch = Batch(tuple(draft.tickets), draft.close_reason(left=bool(self._waiting)))
        self._busy_until[batch] = now + batch.tokens / self._costs.rate(batch.longest)
        return batch, expired

    def finish(self, batch: Batch[P], *, seconds: float | None) -> None:
        """A worker is free again; `seconds` teaches the cost model (None: it failed, learn nothing)."""
        self._busy_until.pop(batch, None)
        if seconds is not None:
            self._costs.observe(longest=batch.longest, tokens=batch.tokens, seconds=seconds)

    def clear(self) -> list[Ticket[P]]:
        """Empty the queue; the tickets that waited, oldest first."""
        return self._waiting.clear()

    def _rest(self, now: float) -> float:
        """Seconds until a worker is free."""
        if len(self._busy_until) < self._policy.workers:
            return 0.0
        return max(0.0, min(self._busy_until.values()) - now)

    def _seconds(self, tokens_by_bucket: Mapping[int, int]) -> float:
        """What all workers together take for these tokens; one alone may take longer for the last of them."""
        return self._costs.seconds(tokens_by_bucket) / self._policy.workers

    def _check_room(self, tokens: int, now: float, caller: str) -> None:
        bound, share = self._policy.queue_tokens, self._policy.caller_share
        left = bound - self.queued_tokens - tokens
        if left < 0:
            raise QueueFull(
                f"{self.queued_tokens} tokens wait and {tokens} more would pass the bound of "
                f"{bound}; come back later",
                retry_after=_retry(self.predicted_wait(now) / 2),
            )
        mine = self._waiting.tokens_of(caller)
        if mine and (mine + tokens) * (1 - share) > left * share:  # who has nothing waiting may always begin
            raise CallerQueueFull(
                f"{mine} tokens of this caller wait and {tokens} more would pass its part of the "
                f"{bound}; come back later",
                retry_after=_retry(self.predicted_wait_of(caller, now) / 2),
            )

    def _doomed(self, now: float) -> Iterator[Ticket[P]]:
        """Take out those who would lead and cannot be done in time even alone; the last one that waits may
        try, so that a wrong prediction is corrected.
        """
        while len(self._waiting) > 1:
            leader = self._waiting.leader()
            if now + self._most(leader.length, longest=leader.length) <= leader.deadline:
                return
            self._waiting.remove(leader, State.GONE)
            yield leader

    def _fill(self, draft: Draft[P], now: float) -> None:
        """The leader, then others by nearness of length, or by age once the leader passed the cap."""
        leader = self._waiting.leader()
        draft.offer(leader)
        if now - leader.admitted > self._policy.age_cap:
            for ticket in itertools.islice(self._waiting.in_turn(), LOOKAHEAD):
                if ticket is not leader and self._done(draft, ticket, now) <= min(draft.due, ticket.deadline):
                    draft.offer(ticket)
            return
        if draft.callers > 1:
            self._fill_near(draft, leader.length, now, fair=True)
        self._fill_near(draft, leader.length, now, fair=False)

    def _fill_near(self, draft: Draft[P], near: int, now: float, *, fair: bool) -> None:
        """By nearness of length; where `fair`, no caller takes more than its part."""
        ranks, without = self._waiting.ranks(), draft.sated if fair else _nobody
        for length in self._waiting.lengths(near):
            if draft.full:
                return
            for ticket in self._waiting.of_length(length, ranks=ranks, without=without):
                if ticket in draft:
                    continue
                done = self._done(draft, ticket, now)
                if done > draft.due or (done <= ticket.deadline and not draft.offer(ticket)):
                    break  # one that is refused speaks for all of its length

    def _done(self, draft: Draft[P], ticket: Ticket[P], now: float) -> float:
        """When the batch would be done at the latest if the ticket rode too."""
        longest = max(draft.longest, ticket.length)
        return now + self._most(draft.tokens + ticket.length, longest=longest)

    def _most(self, tokens: int, *, longest: int) -> float:
        return MARGIN * tokens / self._costs.rate(longest)


def _nobody(caller: str) -> bool:
    return False


def _tokens_by_bucket(lengths: Iterable[int]) -> Counter[int]:
    tokens: Counter[int] = Counter()
    for length in lengths:
        tokens[bucket(length)] += length
    return tokens


def _retry(seconds: float) -> float:
    return min(max(seconds, SHORTEST_RETRY), LONGEST_RETRY)
