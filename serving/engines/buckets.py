"""Which lengths get a graph of their own: a graph compiled for one length saves the work of finding out
shapes, and takes time to compile and memory to keep.

So each must earn its place: it is compiled, timed against the graph that takes any length, and kept only if
it is faster. Count, time and memory are bounded. It knows no runtime: whoever compiles hands in functions.
Lengths are in tokens, times in seconds, memory in bytes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["LENGTHS", "Bounds", "Buckets", "plan_buckets", "resident_bytes"]

T = TypeVar("T")

LENGTHS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
WORTH = 1.03  # a graph of its own must be this much faster
ROUNDS = 4  # of which the fastest counts: other work on the machine only slows
PATIENCE = 2  # lengths in a row without gain, after which longer ones are not tried: gain falls with length
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most graphs, the seconds after which no further one is begun, the most memory of all."""

    count: int = 12
    seconds: float = 8.0
    memory: int = 512 * 1024 * 1024


@dataclass(slots=True)
class Buckets(Generic[T]):
    """The graphs that were kept, by length, and how that came about; `of` finds the one for a row."""

    graphs: dict[int, T] = field(default_factory=dict)
    seconds: float = 0.0
    memory: int = 0
    ended_by: str = "all"
    _dynamic: list[tuple[int, float]] = field(default_factory=list)
    _static: dict[int, float] = field(default_factory=dict)
    _table: list[int] = field(default_factory=list)

    def of(self, length: int) -> int:
        """The length whose graph runs a row of `length` fastest; 0: the graph that takes any length."""
        return self._table[length] if length < len(self._table) else 0

    def __str__(self) -> str:
        lengths = ", ".join(map(str, sorted(self.graphs))) or "none"
        return f"{lengths} (ended by {self.ended_by}; {self.seconds:.1f} s, {self.memory >> 20} MiB)"

    def note(self, length: int, *, dynamic: float, static: float, graph: T) -> bool:
        """Take both times of a length down; whether the graph was kept."""
        self._dynamic.append((length, dynamic))
        if static * WORTH > dynamic:
            return False
        self.graphs[length], self._static[length] = graph, static
        return True

    def settle(self) -> None:
        """Find for every length up to the longest graph whether padding up to it pays."""
        kept = sorted(self.graphs)
        self._table = [0]
        for length in range(1, (kept[-1] if kept else 0) + 1):
            fitting = kept[bisect_left(kept, length)]
            self._table.append(fitting if self._static[fitting] <= self._expected(length) else 0)

    def _expected(self, length: int) -> float:
        """Seconds of the graph that takes any length, by a line between the lengths that were measured."""
        points = self._dynamic
        if length <= points[0][0] or len(points) == 1:
            return points[0][1]
        right = next(place for place, point in enumerate(points) if point[0] >= length)
        (a, low), (b, high) = points[right - 1], points[right]
        return low + (high - low) * (length - a) / (b - a)


def plan_buckets(
    *,
    longest: int,
    bounds: Bounds,
    compile_for: Callable[[int], T],
    run: Callable[[T | None, int], object],
    clock: Callable[[], float],
    memory: Callable[[], int],
    lengths: Sequence[int] = LENGTHS,
) -> Buckets[T]:
    """Compile, time and keep, shortest first.

    Args:
        longest: the model's longest text.
        bounds: what it may cost.
        compile_for: makes the graph for a length.
        run: runs a row of this length through a graph; None is the one that takes any length.
        clock, memory: seconds now, bytes in use now.
    """
    found: Buckets[T] = Buckets()
    started, before, idle = clock(), memory(), 0
    for length in [length for length in lengths if length < longest] + [longest]:
        growth = max(0, memory() - before)
        apiece = growth // len(found.graphs) if found.graphs else 0
        reason = (
            "count" if len(found.graphs) >= bounds.count
            else "time" if clock() - started >= bounds.seconds
            else "memory" if growth + apiece > bounds.memory
            else "gain" if idle >= PATIENCE
            else ""
        )  # fmt: skip
        if reason:
            found.ended_by = reason
            break
        graph = compile_for(length)
        dynamic, static = _both(graph, length, run=run, clock=clock)
        idle = 0 if found.note(length, dynamic=dynamic, static=static, graph=graph) else idle + 1
    found.settle()
    found.seconds, found.memory = clock() - started, max(0, memory() - before)
    return found


def _both(
    graph: T, length: int, *, run: Callable[[T | None, int], object], clock: Callable[[], float]
) -> tuple[float, float]:
    """The fastest time of either graph, by runs in alternation; the first of each is for allocations."""
    best: dict[bool, float] = {}
    for attempt in range(ROUNDS + 1):
        for own in (False, True):
            started = clock()
            run(graph if own else None, length)
            taken = clock() - started
            if attempt:
                best[own] = min(taken, best.get(own, taken))
    return best[False], best[True]


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory of this process that is in use; 0 where the system does not say."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0
