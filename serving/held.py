"""Callers who are held back until the queue has room: each waits in the line of its name, lines take turns.

It knows neither the queue nor what is asked of it: `attempt` says whether a request was let in. However many
wait, a look costs one attempt a line beside those that succeed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Held(Generic[T]):
    """Requests that wait, by caller, the oldest of each first."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, OrderedDict[int, T]] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def has(self, caller: str) -> bool:
        """Whether requests of this caller wait: another one must not overtake them."""
        return caller in self._lines

    def add(self, caller: str, request: T) -> int:
        """Put a request last in its line; the number under which it can be taken out."""
        self._number += 1
        self._lines.setdefault(caller, OrderedDict())[self._number] = request
        return self._number

    def remove(self, caller: str, number: int) -> None:
        """Take a request out, if it still waits."""
        line = self._lines.get(caller)
        if line is not None and line.pop(number, None) is not None and not line:
            del self._lines[caller]

    def let_in(self, attempt: Callable[[T], bool]) -> None:
        """Try the first of each line in turn, until the first of every line is refused."""
        refused: set[str] = set()
        while len(refused) < len(self._lines):
            caller, line = next((name, line) for name, line in self._lines.items() if name not in refused)
            number, request = next(iter(line.items()))
            if not attempt(request):
                refused.add(caller)
                continue
            self.remove(caller, number)
            if caller in self._lines:
                self._lines.move_to_end(caller)

    def clear(self) -> list[T]:
        """Empty all lines; what waited in them."""
        left = [request for line in self._lines.values() for request in line.values()]
        self._lines.clear()
        return left
