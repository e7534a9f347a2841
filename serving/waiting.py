"""The tickets that wait, found by caller, by length and by deadline; it keeps order and decides nothing.

Callers stand in a circle: whose turn it is stands first. Within a caller, and within a length, tickets are in
the order of their arrival. Every step costs as much as what it touches, however many tickets wait.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from serving.batches import State, Ticket
from serving.costs import bucket

P = TypeVar("P")
Line = OrderedDict[int, Ticket[P]]  # by number, which is by age

SLACK = 256  # entries of the heap of deadlines beyond those that wait, before it is swept


class Waiting(Generic[P]):
    """The queue's books."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, Line[P]] = OrderedDict()
        self._by_length: dict[int, dict[str, Line[P]]] = {}
        self._by_deadline: list[tuple[float, int, Ticket[P]]] = []
        self._tokens: dict[str, int] = {}  # of each caller
        self._by_bucket: Counter[int] = Counter()
        self._items = self._sum = 0

    def __len__(self) -> int:
        return self._items

    @property
    def callers(self) -> int:
        """How many callers have something waiting."""
        return len(self._lines)

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._sum

    @property
    def tokens_by_bucket(self) -> Counter[int]:
        """The same by bucket of length."""
        return self._by_bucket

    def tokens_of(self, caller: str) -> int:
        """Tokens of a caller that wait."""
        return self._tokens.get(caller, 0)

    def tokens_before(self, caller: str, limit: int) -> int:
        """Tokens of the others that wait, of each no more than `limit`."""
        mine = min(self._tokens.get(caller, 0), limit)
        return sum(tokens if tokens < limit else limit for tokens in self._tokens.values()) - mine

    def oldest(self) -> Ticket[P] | None:
        """The ticket that has waited longest."""
        firsts = (next(iter(line.values())) for line in self._lines.values())
        return min(firsts, key=lambda ticket: ticket.number, default=None)

    def leader(self) -> Ticket[P]:
        """The oldest ticket of the caller whose turn it is; something must wait."""
        line = next(iter(self._lines.values()))
        return next(iter(line.values()))

    def pass_turn(self, caller: str) -> None:
        """Let a caller stand last, if it still waits."""
        if caller in self._lines:
            self._lines.move_to_end(caller)

    def in_turn(self) -> Iterator[Ticket[P]]:
        """Every ticket: one of each caller, the oldest first, then the next of each."""
        return _in_turn(self._lines.items())

    def lengths(self, near: int) -> list[int]:
        """The lengths that wait, the nearest first."""
        return sorted(self._by_length, key=lambda length: abs(length - near))

    def ranks(self) -> dict[str, int]:
        """Where each caller stands in the circle."""
        return {caller: rank for rank, caller in enumerate(self._lines)}

    def of_length(
        self, length: int, *, ranks: Mapping[str, int], without: Callable[[str], bool]
    ) -> Iterator[Ticket[P]]:
        """Tickets of this length in turn, as `ranks` say; a caller that `without` names gives no more."""
        lines = self._by_length[length].items()
        return _in_turn(sorted(lines, key=lambda line: ranks[line[0]]), without)

    def add(self, ticket: Ticket[P]) -> None:
        """Put a ticket in; a caller that did not wait stands last."""
        caller, length = ticket.caller, ticket.length
        self._lines.setdefault(caller, OrderedDict())[ticket.number] = ticket
        self._by_length.setdefault(length, {}).setdefault(caller, OrderedDict())[ticket.number] = ticket
        self._tokens[caller] = self._tokens.get(caller, 0) + length
        self._by_bucket[bucket(length)] += length
        self._sum += length
        self._items += 1
        if ticket.deadline < math.inf:
            heapq.heappush(self._by_deadline, (ticket.deadline, ticket.number, ticket))

    def remove(self, ticket: Ticket[P], state: State) -> None:
        """Take a ticket out; what is left empty is left out too."""
        ticket.state = state
        caller, length = ticket.caller, ticket.length
        self._items -= 1
        self._sum -= length
        self._by_bucket[bucket(length)] -= length
        self._tokens[caller] -= length
        same = self._by_length[length]
        del same[caller][ticket.number], self._lines[caller][ticket.number]
        if not same[caller]:
            del same[caller]
        if not same:
            del self._by_length[length]
        if not self._lines[caller]:
            del self._lines[caller], self._tokens[caller]
        if len(self._by_deadline) > 2 * self._items + SLACK:  # left-overs of those that ran in time
            self._by_deadline = [entry for entry in self._by_deadline if entry[2].state is State.QUEUED]
            heapq.heapify(self._by_deadline)

    def expire(self, now: float) -> Iterator[Ticket[P]]:
        """Take out those whose deadline has come."""
        while self._by_deadline and self._by_deadline[0][0] <= now:
            ticket = heapq.heappop(self._by_deadline)[2]
            if ticket.state is State.QUEUED:
                self.remove(ticket, State.GONE)
                yield ticket

    def clear(self) -> list[Ticket[P]]:
        """Take out all; the oldest first."""
        everything = sorted(
            (ticket for line in self._lines.values() for ticket in line.values()),
            key=lambda ticket: ticket.number,
        )
        for ticket in everything:
            self.remove(ticket, State.GONE)
        return everything


def _in_turn(
    lines: Iterable[tuple[str, Line[P]]], without: Callable[[str], bool] = lambda caller: False
) -> Iterator[Ticket[P]]:
    circle = [(caller, iter(line.values())) for caller, line in lines]
    while circle:
        staying = []
        for caller, line in circle:
            if without(caller):
                continue
            ticket = next(line, None)
            if ticket is not None:
                yield ticket
                staying.append((caller, line))
        circle = staying
