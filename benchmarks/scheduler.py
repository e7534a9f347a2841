"""Does batching without a timer, by length and deadline, serve better than a fixed window, or no batching?

Question: on the very same arrivals, what do callers see of our scheduler, of a server that gathers for a
fixed window and pads whatever came, and of one that computes one text at a time?

How: arrivals are drawn once (Poisson, lengths as of mixed short and long texts, or a file of yours with lines
of "seconds tokens") and replayed against three policies on a simulated clock. The engine is a model of costs:
a fixed part for each call, and time for each padded token, dearer in long rows and beyond what the cache
holds; its figures are a guess at MiniLM on two cores, not a fit. Ours is the real `serving.scheduler`, with
the real admission; the others queue without bound, as such servers do. No engine runs,
so the figures hold anywhere.

Output: a table by load with p50 and p99 of the answers that came in time, goodput (answers in time a second),
what was refused at once, and padding; a JSON file in benchmarks/results/.

    python -m benchmarks.scheduler
    python -m benchmarks.scheduler --trace arrivals.txt --deadline 2
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.record import RESULTS, asked, write_record
from serving.batches import Policy
from serving.costs import CostModel
from serving.errors import Refused
from serving.scheduler import Scheduler

LOADS = (0.3, 0.7, 0.9, 1.1, 1.5, 3.0)
CALLERS = 20


@dataclass(frozen=True)
class Arrival:
    """A text: when it comes, how many tokens it has, who sends it."""

    at: float
    tokens: int
    caller: str


@dataclass
class Outcome:
    """What became of all arrivals."""

    latencies: list[float] = field(default_factory=list)
    late: int = 0
    refused: int = 0
    expired: int = 0
    tokens: int = 0
    padded: int = 0
    busy: float = 0.0


def seconds(lengths: Sequence[int]) -> float:
    """What a batch costs: 2 ms, 0.11 ms a padded token, more in long rows, and beyond 1,024 tokens."""
    padded = max(lengths) * len(lengths)
    dear = 1 + max(lengths) / 1024 + 0.25 * min(1.0, max(0.0, padded / 1024 - 1))
    return 0.002 + 0.00011 * padded * dear


class Server(Protocol):
    """A policy: takes arrivals, gives batches."""

    def arrive(self, arrival: Arrival, now: float, deadline: float) -> bool:
        """Whether it is taken."""
        ...

    def batch(self, now: float, out: Outcome) -> tuple[list[tuple[Arrival, float]], float | None]:
        """The next batch with the deadlines of its members; or when to ask again."""
        ...

    def done(self, lengths: Sequence[int], took: float) -> None:
        """The batch is computed."""
        ...


class Ours:
    """The scheduler of the service."""

    def __init__(self) -> None:
        costs = CostModel(initial=1000)
        for length in (16, 32, 64, 128, 256, 512):
            costs.observe(longest=length, tokens=length, seconds=seconds([length]))
        policy = Policy(batch_tokens=512)
        self._queue: Scheduler[Arrival] = Scheduler(policy=policy, costs=costs)
        self._running = None

    def arrive(self, arrival: Arrival, now: float, deadline: float) -> bool:
        """See `Server`."""
        try:
            self._queue.admit([(arrival, arrival.tokens)], now=now, deadline=deadline, caller=arrival.caller)
        except Refused:
            return False
        return True

    def batch(self, now: float, out: Outcome) -> tuple[list[tuple[Arrival, float]], float | None]:
        """See `Server`."""
        batch, expired = self._queue.take(now)
        out.expired += len(expired)
        self._running = batch  # type: ignore[assignment]  # it is asked for once at a time
        return [(ticket.payload, ticket.deadline) for ticket in batch.tickets] if batch else [], None

    def done(self, lengths: Sequence[int], took: float) -> None:
        """See `Server`."""
        self._queue.finish(self._running, seconds=took)  # type: ignore[arg-type]  # as above


class Window:
    """First come, first served: gathers for `window` seconds or until `most` came. It forgets nobody."""

    def __init__(self, window: float, most: int) -> None:
        self._window, self._most = window, most
        self._line: deque[tuple[Arrival, float]] = deque()

    def arrive(self, arrival: Arrival, now: float, deadline: float) -> bool:
        """See `Server`."""
        self._line.append((arrival, deadline))
        return True

    def batch(self, now: float, out: Outcome) -> tuple[list[tuple[Arrival, float]], float | None]:
        """See `Server`."""
        if not self._line:
            return [], None
        ripe = self._line[0][0].at + self._window
        if len(self._line) < self._most and now < ripe - 1e-12:
            return [], ripe
        return [self._line.popleft() for _ in range(min(self._most, len(self._line)))], None

    def done(self, lengths: Sequence[int], took: float) -> None:
        """See `Server`."""


def simulate(server: Server, arrivals: Iterable[Arrival], deadline: float) -> Outcome:
    """Replay the arrivals; the engine is free, or computes one batch."""
    out, free_at, asked = Outcome(), 0.0, -math.inf
    events: list[tuple[float, int, Arrival | None]] = []
    order = itertools.count()
    for coming in arrivals:
        heapq.heappush(events, (coming.at, next(order), coming))
    while events:
        now, _, arrival = heapq.heappop(events)
        if arrival is not None and not server.arrive(arrival, now, now + deadline):
            out.refused += 1
        if now < free_at:
            continue
        members, again = server.batch(now, out)
        if not members:
            if again is not None and again > asked:
                asked = again
                heapq.heappush(events, (again, next(order), None))
            continue
        lengths = [member.tokens for member, _ in members]
        took = seconds(lengths)
        free_at = now + took
        server.done(lengths, took)
        out.busy += took
        out.tokens += sum(lengths)
        out.padded += max(lengths) * len(lengths)
        for member, limit in members:
            if free_at <= limit:
                out.latencies.append(free_at - member.at)
            else:
                out.late += 1
        heapq.heappush(events, (free_at, next(order), None))
    return out


def drawn(load: float, *, span: float, seed: int) -> list[Arrival]:
    """Poisson arrivals at `load` times what one text at a time could carry; lengths of mixed texts."""
    rng = random.Random(seed)

    def length() -> int:
        return min(512, max(4, round(rng.lognormvariate(3.2, 0.9))))

    mean = sum(seconds([length()]) for _ in range(5000)) / 5000
    found, now = list[Arrival](), 0.0
    while (now := now + rng.expovariate(load / mean)) < span:
        found.append(Arrival(now, length(), f"caller{rng.randrange(CALLERS)}"))
    return found


def read_trace(path: Path) -> list[Arrival]:
    """Lines of "seconds tokens"."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [Arrival(float(row[0]), int(row[1]), f"caller{n % CALLERS}") for n, row in enumerate(rows)]


def row(name: str, load: float | str, out: Outcome, span: float) -> dict[str, object]:
    """One line of the table."""
    found = sorted(out.latencies) or [math.nan]
    return {
        "load": load,
        "policy": name,
        "p50_ms": round(1000 * found[len(found) // 2], 1),
        "p99_ms": round(1000 * found[int(0.99 * (len(found) - 1))], 1),
        "goodput_per_s": round(len(out.latencies) / span, 1),
        "late": out.late,
        "refused": out.refused,
        "expired": out.expired,
        "padding": round(1 - out.tokens / out.padded, 3) if out.padded else 0.0,
        "busy": round(out.busy / span, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds that every caller waits")
    parser.add_argument("--span", type=float, default=120.0, help="seconds of arrivals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, help="your own arrivals: lines of seconds and tokens")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    traces: list[tuple[float | str, list[Arrival]]] = (
        [(options.trace.name, read_trace(options.trace))]
        if options.trace
        else [(load, drawn(load, span=options.span, seed=options.seed)) for load in LOADS]
    )
    rows = []
    for load, arrivals in traces:
        span = max(arrival.at for arrival in arrivals)
        for name, server in (
            ("ours", Ours()),
            ("window 5 ms, 32", Window(0.005, 32)),
            ("window 50 ms, 32", Window(0.05, 32)),
            ("one at a time", Window(0.0, 1)),
        ):
            rows.append(row(name, load, simulate(server, arrivals, options.deadline), span))
    print(f"deadline {options.deadline:g} s; load 1 = what one text at a time could carry")
    for line in rows:
        print(
            f"load {line['load']!s:>4}  {line['policy']:<17} p50 {line['p50_ms']:>7} ms  "
            f"p99 {line['p99_ms']:>7} ms  goodput {line['goodput_per_s']:>6}/s  late {line['late']:>6}  "
            f"refused {line['refused']:>6}  padding {line['padding']:.1%}"
        )
    record = {
        "options": asked(options),
        "policy": asdict(Policy(batch_tokens=512)),
        "table": rows,
    }
    print(write_record("scheduler", record, out=options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
