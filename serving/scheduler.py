"""Who rides in the next batch, and who may wait at all: a pure machine with no thread, clock, gRPC or torch.

Its owner calls it under one lock and passes the time in. A ticket goes QUEUED → RUNNING, or QUEUED → GONE
(cancelled, or past its deadline); nothing that is GONE is ever put into a batch.

Batching is work-conserving: `take` is called when the engine is free, never by a timer, so an idle server
adds no wait. A batch is the oldest ticket plus those of nearest length, as long as `longest · n` stays in the
budget and padding stays below its share. Because the oldest always rides, nothing starves; past `age_cap` the
rest of the batch is filled by age too.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from serving.costs import CostModel, bucket
from serving.errors import QueueFull, WouldMissDeadline

P = TypeVar("P")

SHORTEST_RETRY, LONGEST_RETRY = 0.05, 10.0  # seconds; below is a busy loop, above a client has given up
LOOKAHEAD = 256  # tickets that the age rule looks at: bounds the time under the lock


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the scheduler: tokens, tokens, share 0 to 1, seconds, items."""

    queue_tokens: int = 32_768
    batch_tokens: int = 512
    max_padding: float = 0.25
    age_cap: float = 1.0
    batch_items: int = 64


class State(Enum):
    """Where a ticket is."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Ticket(Generic[P]):
    """One item's place in the queue: what it carries, its length in tokens, and when it is too late."""

    number: int
    payload: P
    length: int
    admitted: float
    deadline: float
    state: State = State.QUEUED


@dataclass(frozen=True, slots=True)
class Batch(Generic[P]):
    """Tickets that run together; `close_reason` is why it holds no more: drained, budget, padding, items."""

    tickets: tuple[Ticket[P], ...]
    close_reason: str

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(ticket.length for ticket in self.tickets)

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return sum(ticket.length for ticket in self.tickets)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the engine computes."""
        return self.longest * len(self.tickets)


@dataclass(slots=True)
class _Draft(Generic[P]):
    """A batch while it is being filled."""

    policy: Policy
    tickets: list[Ticket[P]] = field(default_factory=list)
    longest: int = 0
    tokens: int = 0

    @property
    def full(self) -> bool:
        """Whether not even the shortest ticket would have room."""
        count = len(self.tickets)
        return count >= self.policy.batch_items or self.longest * (count + 1) > self.policy.batch_tokens

    def offer(self, ticket: Ticket[P]) -> bool:
        """Add the ticket if the batch has room for it; a lone ticket always rides, however long it is."""
        longest, tokens = max(self.longest, ticket.length), self.tokens + ticket.length
        padded = longest * (len(self.tickets) + 1)
        unlike = padded - tokens > self.policy.max_padding * padded
        crowded = len(self.tickets) >= self.policy.batch_items or padded > self.policy.batch_tokens
        if self.tickets and (crowded or unlike):
            return False
        self.tickets.append(ticket)
        self.longest, self.tokens = longest, tokens
        return True

    def close_reason(self, left: bool) -> str:
        """Why it holds no more, `left` saying whether anything still waits."""
        if not left:
            return "drained"
        if len(self.tickets) >= self.policy.batch_items:
            return "items"
        return "budget" if self.full else "padding"


class Scheduler(Generic[P]):
    """The queue of one engine: bounded in tokens, aware of deadlines, filled and emptied by its owner."""

    def __init__(self, *, policy: Policy, costs: CostModel) -> None:
        self._policy, self._costs = policy, costs
        self._numbers = itertools.count()
        self._by_age: OrderedDict[int, Ticket[P]] = OrderedDict()
        self._by_length: dict[int, OrderedDict[int, Ticket[P]]] = {}
        self._by_deadline: list[tuple[float, int, Ticket[P]]] = []
        self._queued: Counter[int] = Counter()  # tokens by bucket
        self._running: Batch[P] | None = None
        self._busy_until = -math.inf

    @property
    def policy(self) -> Policy:
        """The numbers that it works by."""
        return self._policy

    @property
    def queued_items(self) -> int:
        """Tickets that wait."""
        return len(self._by_age)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        return self._queued.total()

    def oldest_age(self, now: float) -> float:
        """Seconds that the oldest ticket has waited; 0 when none waits."""
        oldest = next(iter(self._by_age.values()), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.admitted)

    def predicted_wait(self, now: float) -> float:
        """Seconds until an item admitted now would be taken: the running batch's rest, then the queue."""
        running = max(0.0, self._busy_until - now) if self._running else 0.0
        return running + self._costs.seconds(self._queued)

    def admit(
        self, jobs: Sequence[tuple[P, int]], *, now: float, deadline: float = math.inf
    ) -> list[Ticket[P]]:
        """Queue all jobs (payload, length ≥ 1) or none of them.

        Raises `QueueFull` when their tokens would pass the bound, and `WouldMissDeadline` when the predicted
        wait and their own cost pass the deadline. An idle engine takes anything whose deadline is still to
        come: its prediction would otherwise never be corrected. Both errors say when it is worth coming back.
        """
        tokens = sum(length for _, length in jobs)
        wait = self.predicted_wait(now)
        if self.queued_tokens + tokens > self._policy.queue_tokens:
            raise QueueFull(
                f"{self.queued_tokens} tokens wait and {tokens} more would pass the bound of "
                f"{self._policy.queue_tokens}; come back later",
                retry_after=_retry(wait / 2),
            )
        own = self._costs.seconds(_tokens_by_bucket(length for _, length in jobs)) if wait else 0.0
        if now + wait + own > deadline:
            raise WouldMissDeadline(
                f"the predicted wait of {wait + own:.3f} s passes the remaining "
                f"{max(0.0, deadline - now):.3f} s; come back later or allow more time",
                retry_after=_retry(wait),
            )
        return [self._enqueue(payload, length, now, deadline) for payload, length in jobs]

    def cancel(self, ticket: Ticket[P]) -> bool:
        """Take a ticket out of the queue; False when it is not queued (any more)."""
        if ticket.state is not State.QUEUED:
            return False
        self._remove(ticket, State.GONE)
        return True

    def take(self, now: float) -> tuple[Batch[P] | None, list[Ticket[P]]]:
        """The next batch (None: nothing waits), and the tickets dropped because their deadline has passed."""
        expired = list(self._expire(now))
        if not self._by_age:
            return None, expired
        draft: _Draft[P] = _Draft(self._policy)
        self._fill(draft, now)
        for ticket in draft.tickets:
            self._remove(ticket, State.RUNNING)
        batch = Batch(tuple(draft.tickets), draft.close_reason(left=bool(self._by_age)))
        self._running = batch
        self._busy_until = now + batch.tokens / self._costs.rate(batch.longest)
        return batch, expired

    def finish(self, batch: Batch[P], *, seconds: float | None) -> None:
        """The engine is free again; `seconds` teaches the cost model (None: it failed, learn nothing)."""
        self._running = None
        if seconds is not None:
            self._costs.observe(longest=batch.longest, tokens=batch.tokens, seconds=seconds)

    def clear(self) -> list[Ticket[P]]:
        """Empty the queue; the tickets that waited, oldest first."""
        waiting = list(self._by_age.values())
        for ticket in waiting:
            self._remove(ticket, State.GONE)
        return waiting

    def _enqueue(self, payload: P, length: int, now: float, deadline: float) -> Ticket[P]:
        ticket = Ticket(next(self._numbers), payload, length, now, deadline)
        self._by_age[ticket.number] = ticket
        self._by_length.setdefault(length, OrderedDict())[ticket.number] = ticket
        self._queued[bucket(length)] += length
        if deadline < math.inf:
            heapq.heappush(self._by_deadline, (deadline, ticket.number, ticket))
        return ticket

    def _remove(self, ticket: Ticket[P], state: State) -> None:
        ticket.state = state
        del self._by_age[ticket.number]
        same = self._by_length[ticket.length]
        del same[ticket.number]
        if not same:
            del self._by_length[ticket.length]
        self._queued[bucket(ticket.length)] -= ticket.length
        if len(self._by_deadline) > 2 * len(self._by_age) + LOOKAHEAD:  # left-overs of those that ran in time
            self._by_deadline = [entry for entry in self._by_deadline if entry[2].state is State.QUEUED]
            heapq.heapify(self._by_deadline)

    def _expire(self, now: float) -> Iterator[Ticket[P]]:
        while self._by_deadline and self._by_deadline[0][0] <= now:
            ticket = heapq.heappop(self._by_deadline)[2]
            if ticket.state is State.QUEUED:
                self._remove(ticket, State.GONE)
                yield ticket

    def _fill(self, draft: _Draft[P], now: float) -> None:
        """The oldest ticket, then others by nearness of length, or by age once the oldest passed the cap."""
        oldest = next(iter(self._by_age.values()))
        draft.offer(oldest)
        if now - oldest.admitted > self._policy.age_cap:
            for ticket in itertools.islice(self._by_age.values(), 1, LOOKAHEAD):
                draft.offer(ticket)
            return
        for length in sorted(self._by_length, key=lambda other: abs(other - oldest.length)):
            for ticket in self._by_length[length].values():
                if draft.full:
                    return
                if ticket is not oldest and not draft.offer(ticket):
                    break  # one that is refused speaks for all of its length


def _tokens_by_bucket(lengths: Iterable[int]) -> Counter[int]:
    tokens: Counter[int] = Counter()
    for length in lengths:
        tokens[bucket(length)] += length
    return tokens


def _retry(seconds: float) -> float:
    return min(max(seconds, SHORTEST_RETRY), LONGEST_RETRY)
