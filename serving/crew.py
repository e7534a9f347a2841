"""The threads that take batches through an engine, and what is done when one of them dies or hangs.

It knows the engine and the scheduler behind its lock, and not who waits for an answer: outcomes are handed to
`deliver`. Every ticket that a thread took is delivered exactly once.

A thread that computes cannot be killed. One whose engine has not come back within `hang_seconds` is left
behind: its callers are answered, and another thread takes its place, which asks the engine for a sign of life
before it serves. What the lost thread may still compute is thrown away. After `LOST` threads of one place the
place is given up, and `on_hopeless` is told: only a new process helps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from serving.batches import Batch, Ticket
from serving.engines.base import Engine, EngineDied
from serving.errors import DeadlineMissed, EngineCrashed, EngineHung, ItemFailed, ServingError
from serving.logs import describe
from serving.metrics import Metrics
from serving.scheduler import Scheduler
from serving.types import EngineItem, EngineOutput, Ride

PROBE = EngineItem(ids=(0, 0, 0, 0))  # id 0 exists in every vocabulary
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts to revive a dead engine
LOST = 3  # threads of one place that may hang at once

log = structlog.get_logger(__name__)

Outcome = tuple[EngineOutput, Ride] | ServingError


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One item, and whatever its owner needs to find who waits for it."""

    item: EngineItem
    owner: object


@dataclass(slots=True)
class Desk:
    """What the threads and their owner share: the queue, its lock, and whether it is being closed."""

    scheduler: Scheduler[Job]
    lock: threading.Condition = field(default_factory=threading.Condition)
    closing: bool = False


@dataclass(slots=True, eq=False)
class Shift:
    """One thread's time at its place. `since` is when the engine was last called, None while it is not."""

    engine: Engine
    thread: threading.Thread | None = None
    batch: Batch[Job] | None = None
    since: float | None = None
    dead: bool = False
    left_behind: threading.Event = field(default_factory=threading.Event)


class Crew:
    """One place for each of `engines`. `on_health` hears whether any place works, when that changes; it and
    `on_hopeless` are called on any thread.
    """

    def __init__(
        self,
        *,
        name: str,
        engines: Sequence[Engine],
        desk: Desk,
        metrics: Metrics,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[tuple[Ticket[Job], Outcome]]], None],
        on_health: Callable[[bool], None],
        on_hopeless: Callable[[], None],
        hang_seconds: float,
    ) -> None:
        self._name, self._desk, self._metrics, self._clock = name, desk, metrics, clock
        self._deliver, self._on_health, self._on_hopeless = deliver, on_health, on_hopeless
        self._hang_seconds = hang_seconds
        self._shifts = [Shift(engine) for engine in engines]
        self._lost: dict[int, list[Shift]] = {place: [] for place in range(len(engines))}
        self._healthy = True

    def start(self) -> None:
        """Start a thread for each place."""
        for place, shift in enumerate(self._shifts):
            self._begin(place, shift)

    def check(self) -> None:
        """Leave threads behind that have been with their engine for too long; to be called now and then."""
        now = self._clock()
        for place, shift in enumerate(self._shifts):
            since = shift.since
            if since is not None and now - since > self._hang_seconds:
                self._leave_behind(place, shift, now)

    def drop(self, tickets: Sequence[Ticket[Job]], error: ServingError, reason: str) -> None:
        """Answer accepted tickets that will not be computed."""
        if tickets:
            self._metrics.dropped.labels(reason).inc(len(tickets))
            self._deliver([(ticket, error) for ticket in tickets])

    def join(self) -> None:
        """Wait until every thread has ended; the desk is closing. One that hangs is left behind in time."""
        for place in range(len(self._shifts)):
            while (thread := self._shifts[place].thread) is not None and thread.is_alive():
                thread.join(min(0.1, self._hang_seconds))
                self.check()

    def _begin(self, place: int, shift: Shift) -> None:
        shift.thread = threading.Thread(
            target=self._supervise, args=(shift,), name=f"engine-{self._name}-{place}", daemon=True
        )
        shift.thread.start()

    def _leave_behind(self, place: int, shift: Shift, now: float) -> None:
        with self._desk.lock:
            since = shift.since
            if shift.left_behind.is_set() or since is None or now - since <= self._hang_seconds:
                return  # it came back in this very moment
            batch = shift.batch
            shift.left_behind.set()
            if batch is not None:
                self._desk.scheduler.finish(batch, seconds=None)
            # Dead until it shows a sign of life: that the thread is new mends no engine.
            successor = self._shifts[place] = Shift(shift.engine, dead=True)
        self._lost[place] = [lost for lost in self._lost[place] if lost.thread and lost.thread.is_alive()]
        self._lost[place].append(shift)
        self._metrics.hangs.inc()
        lost = len(self._lost[place])
        log.error("engine hangs", model=self._name, seconds=round(now - since, 3), threads_lost=lost)
        self._tell()
        if batch is not None:
            text = f"the engine has not answered for {self._hang_seconds:g} s; try again"
            self.drop(batch.tickets, EngineHung(text, retry_after=1.0), "hung")
        if self._desk.closing:
            return
        if lost < LOST:
            self._begin(place, successor)
            return
        log.error("engine given up", model=self._name, cure="restart the process")
        self._on_hopeless()

    def _tell(self) -> None:
        healthy = any(not shift.dead for shift in self._shifts)
        if healthy != self._healthy:
            self._healthy = healthy
            self._on_health(healthy)

    # Below: a thread of its own.

    def _supervise(self, shift: Shift) -> None:
        """Take batches until closed; whatever kills the engine is reported, and it is begun again."""
        pause = FIRST_PAUSE
        while not self._desk.closing and not shift.left_behind.is_set():
            try:
                if shift.dead:
                    self._call(shift, [PROBE])
                    self._revive(shift)
                self._work(shift)
                return
            except BaseException as error:  # SystemExit inside an engine must not end the thread silently
                if shift.left_behind.is_set():
                    return
                pause = min(2 * pause, LONGEST_PAUSE) if shift.dead else FIRST_PAUSE
                shift.dead = True
                self._tell()
                log.error("engine crashed", model=self._name, pause=pause, **describe(error))
                with self._desk.lock:
                    self._desk.lock.wait_for(lambda: self._desk.closing, timeout=pause)

    def _revive(self, shift: Shift) -> None:
        if not shift.left_behind.is_set():
            log.info("engine revived", model=self._name)
            shift.dead = False
            self._tell()

    def _call(self, shift: Shift, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """Run the engine, its beginning noted so that a hang is seen."""
        shift.since = self._clock()
        try:
            return shift.engine.run(items)
        finally:
            with self._desk.lock:  # whether it came back or was left behind is decided once
                shift.since = None

    def _work(self, shift: Shift) -> None:
        while not shift.left_behind.is_set() and (batch := self._next(shift)) is not None:
            try:
                outcomes, seconds = self._through(shift, batch)
            except BaseException:
                if self._release(shift, batch, seconds=None):
                    text = "the engine crashed and is being restarted; try again"
                    self.drop(batch.tickets, EngineCrashed(text, retry_after=1.0), "crashed")
                raise
            if self._release(shift, batch, seconds=seconds):
                self._deliver(outcomes)

    def _next(self, shift: Shift) -> Batch[Job] | None:
        """Wait for work; None when closing."""
        desk = self._desk
        while True:
            with desk.lock:
                batch, expired = desk.scheduler.take(self._clock())
                shift.batch = batch
                if batch is None and not expired:
                    if desk.closing:
                        return None
                    desk.lock.wait()
            late = DeadlineMissed("the deadline left no time to compute the text; allow more time")
            self.drop(expired, late, "expired")
            if batch is not None:
                return batch

    def _release(self, shift: Shift, batch: Batch[Job], *, seconds: float | None) -> bool:
        """Give the batch back; False when it was answered already, since this thread was left behind."""
        with self._desk.lock:
            if shift.left_behind.is_set():
                return False
            shift.batch = None
            self._desk.scheduler.finish(batch, seconds=seconds)
            return True

    def _through(
        self, shift: Shift, batch: Batch[Job]
    ) -> tuple[list[tuple[Ticket[Job], Outcome]], float | None]:
        """Compute a batch; the seconds that the engine took, None when something in it failed."""
        metrics, started = self._metrics, self._clock()
        metrics.rode(batch)
        try:
            outcomes = self._compute(shift, batch.tickets)
        finally:
            seconds = self._clock() - started
            metrics.busy_seconds.inc(seconds)
        failures = sum(isinstance(outcome, ServingError) for outcome in outcomes)
        if failures == len(outcomes):
            self._call(shift, [PROBE])  # raises when it is the engine that is broken, not the items
        size = len(batch.tickets), batch.padded_tokens
        pairs: list[tuple[Ticket[Job], Outcome]] = [
            (ticket, outcome)
            if isinstance(outcome, ServingError)
            else (ticket, (outcome, Ride(started - ticket.admitted, seconds, *size, started)))
            for ticket, outcome in zip(batch.tickets, outcomes, strict=True)
        ]
        return pairs, None if failures else seconds

    def _compute(self, shift: Shift, tickets: Sequence[Ticket[Job]]) -> list[EngineOutput | ServingError]:
        """Run the batch; where it fails, run its halves, so that only the item at fault pays."""
        try:
            outputs = self._call(shift, [ticket.payload.item for ticket in tickets])
            if len(outputs) != len(tickets):
                raise EngineDied(f"{len(outputs)} outputs for {len(tickets)} rows")
            return list[EngineOutput | ServingError](outputs)
        except EngineDied:
            raise
        except Exception as error:
            if shift.left_behind.is_set():
                raise  # nobody waits for the rest
            if len(tickets) == 1:
                log.error("item failed", model=self._name, tokens=tickets[0].length, **describe(error))
                return [ItemFailed("the model failed on this text; report it with the request id")]
        middle = len(tickets) // 2
        return self._compute(shift, tickets[:middle]) + self._compute(shift, tickets[middle:])
