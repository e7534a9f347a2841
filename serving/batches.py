"""What the scheduler deals in: its numbers, a place in the queue, a batch, and a batch while it is filled.

Values without a queue, a clock or a thread.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the scheduler: tokens, tokens, tokens, seconds, items, share 0 to 1, threads.

    `padding_tokens` is the most padding that one more text may bring into a batch: beyond it a batch of its
    own is done sooner. `caller_share` is the most of the queue that a lone caller fills; 1: one may fill all
    of it. `workers` is how many batches may run at once.
    """

    queue_tokens: int = 32_768
    batch_tokens: int = 512
    padding_tokens: int = 16
    age_cap: float = 1.0
    batch_items: int = 64
    caller_share: float = 1.0
    workers: int = 1


class State(Enum):
    """Where a ticket is."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Ticket(Generic[P]):
    """One item's place in the queue: what it carries, its length in tokens, when it is too late, whose it is,
    and the seconds that it was predicted to wait.
    """

    number: int
    payload: P
    length: int
    admitted: float
    deadline: float
    caller: str = ""
    predicted: float = 0.0
    state: State = State.QUEUED


@dataclass(frozen=True, slots=True, eq=False)
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
class Draft(Generic[P]):
    """A batch while it is being filled; `callers`: how many wait, each of whom has an equal part in it.

    `due` is the earliest deadline of those who ride.
    """

    policy: Policy
    callers: int = 1
    tickets: list[Ticket[P]] = field(default_factory=list)
    longest: int = 0
    tokens: int = 0
    due: float = math.inf
    _numbers: set[int] = field(default_factory=set)
    _items_of: Counter[str] = field(default_factory=Counter)
    _tokens_of: Counter[str] = field(default_factory=Counter)

    def __contains__(self, ticket: Ticket[P]) -> bool:
        return ticket.number in self._numbers

    @property
    def full(self) -> bool:
        """Whether not even the shortest ticket would have room."""
        count = len(self.tickets)
        return count >= self.policy.batch_items or self.longest * (count + 1) > self.policy.batch_tokens

    def sated(self, caller: str) -> bool:
        """Whether a caller has had its part: one ticket in any case, then an equal share of the batch."""
        items, tokens = self._items_of[caller] * self.callers, self._tokens_of[caller] * self.callers
        return items > 0 and (items >= self.policy.batch_items or tokens >= self.policy.batch_tokens)

    def offer(self, ticket: Ticket[P]) -> bool:
        """Add the ticket if the batch has room for it; a lone ticket always rides, however long it is."""
        longest, tokens = max(self.longest, ticket.length), self.tokens + ticket.length
        padded = longest * (len(self.tickets) + 1)
        unlike = padded - self.longest * len(self.tickets) - ticket.length > self.policy.padding_tokens
        crowded = len(self.tickets) >= self.policy.batch_items or padded > self.policy.batch_tokens
        if self.tickets and (crowded or unlike):
            return False
        self.tickets.append(ticket)
        self.longest, self.tokens, self.due = longest, tokens, min(self.due, ticket.deadline)
        self._numbers.add(ticket.number)
        self._items_of[ticket.caller] += 1
        self._tokens_of[ticket.caller] += ticket.length
        return True

    def close_reason(self, left: bool) -> str:
        """Why it holds no more, `left` saying whether anything still waits."""
        if not left:
            return "drained"
        if len(self.tickets) >= self.policy.batch_items:
            return "items"
        return "budget" if self.full else "padding"
