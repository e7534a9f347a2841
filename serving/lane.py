"""The way of items through one engine: an event loop puts them in, one thread takes them through.

It owns the lock around the scheduler, the thread, and the futures of those who wait. It knows no text, no
label and no wire. Every accepted item is answered exactly once: with its output, or with an error of
`serving.errors`.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from serving.engines.base import Engine, EngineDied
from serving.errors import DeadlineMissed, Draining, EngineCrashed, ItemFailed, Refused, ServingError
from serving.logs import describe
from serving.metrics import Metrics
from serving.scheduler import Batch, Scheduler, Ticket
from serving.types import EngineItem, EngineOutput, Ride

Outcome = tuple[EngineOutput, Ride] | ServingError

PROBE = EngineItem(ids=(0, 0, 0, 0))  # id 0 exists in every vocabulary
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds between attempts to revive a dead engine

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One item and the future of whoever waits for it."""

    item: EngineItem
    future: asyncio.Future[Outcome]


class Lane:
    """One engine with its queue. Build and use it on one event loop; `on_health` is called on that loop."""

    def __init__(
        self,
        *,
        name: str,
        engine: Engine,
        scheduler: Scheduler[Job],
        metrics: Metrics,
        clock: Callable[[], float],
        on_health: Callable[[bool], None] = lambda healthy: None,
    ) -> None:
        self.name = name
        self._engine, self._scheduler, self._metrics, self._clock = engine, scheduler, metrics, clock
        self._on_health = on_health
        self._lock = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"engine-{name}", daemon=True)
        self._watch()

    @property
    def queue_tokens(self) -> int:
        """The most tokens that may wait."""
        return self._scheduler.policy.queue_tokens

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    async def submit(
        self,
        items: Sequence[EngineItem],
        *,
        deadline: float = math.inf,
        patient: bool = False,
        caller: str = "",
    ) -> list[Outcome]:
        """Take all items through the engine; one outcome each, in their order.

        `deadline` is a time of the lane's clock. `patient` callers are held back instead of being refused.
        `caller` is the name under which the items take turns with those of others.
        Raises `QueueFull`, `WouldMissDeadline` or `Draining` before any work is done, and `DeadlineMissed`
        when the deadline passes first. When the caller is cancelled, what still waits is taken out of the
        queue.
        """
        tickets = await self._admit(items, deadline, patient, caller)
        futures = [ticket.payload.future for ticket in tickets]
        timeout = None if deadline == math.inf else max(0.0, deadline - self._clock())
        try:
            async with asyncio.timeout(timeout):
                return [await future for future in futures]
        except TimeoutError:
            self._abandon(tickets, "expired")
            raise DeadlineMissed("the deadline passed while the text waited; allow more time") from None
        except asyncio.CancelledError:
            self._abandon(tickets, "cancelled")
            raise

    async def close(self) -> None:
        """Stop the thread; what still waits is answered with `Draining`."""
        with self._lock:
            self._closing = True
            left = self._scheduler.clear()
            self._lock.notify_all()
        self._answer(left, Draining("the service is stopping; ask another one"), "closed")
        self._room.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _watch(self) -> None:
        def locked(read: Callable[[], float]) -> Callable[[], float]:
            def reading() -> float:
                with self._lock:
                    return read()

            return reading

        queue = self._scheduler
        self._metrics.watch_queue(
            self.name,
            items=locked(lambda: queue.queued_items),
            tokens=locked(lambda: queue.queued_tokens),
            age=locked(lambda: queue.oldest_age(self._clock())),
            wait=locked(lambda: queue.predicted_wait(self._clock())),
        )

    async def _admit(
        self, items: Sequence[EngineItem], deadline: float, patient: bool, caller: str
    ) -> list[Ticket[Job]]:
        while True:
            self._room.clear()
            jobs = [(Job(item, self._loop.create_future()), len(item.ids)) for item in items]
            try:
                with self._lock:
                    if self._closing:
                        raise Draining("the service is stopping; ask another one")
                    now = self._clock()
                    tickets = self._scheduler.admit(jobs, now=now, deadline=deadline, caller=caller)
                    self._lock.notify_all()
                return tickets
            except Refused as refusal:
                if not patient or self._clock() >= deadline:
                    self._metrics.rejected.labels(refusal.reason).inc()
                    raise
            await self._room.wait()

    def _abandon(self, tickets: Sequence[Ticket[Job]], reason: str) -> None:
        with self._lock:
            dropped = sum(self._scheduler.cancel(ticket) for ticket in tickets)
        self._metrics.dropped.labels(reason).inc(dropped)

    def _answer(self, tickets: Sequence[Ticket[Job]], error: ServingError, reason: str) -> None:
        """On any thread: answer accepted tickets that will not be computed."""
        if tickets:
            self._metrics.dropped.labels(reason).inc(len(tickets))
            self._deliver([(ticket, error) for ticket in tickets])

    def _deliver(self, outcomes: Sequence[tuple[Ticket[Job], Outcome]]) -> None:
        def deliver() -> None:
            for ticket, outcome in outcomes:
                if not ticket.payload.future.done():  # its caller may have gone
                    ticket.payload.future.set_result(outcome)
            self._room.set()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver)

    def _report(self, healthy: bool) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_health, healthy)

    # Below: the engine's own thread.

    def _supervise(self) -> None:
        """Run the engine until closed; whatever kills the run is reported, and the run is begun again."""
        pause, dead = FIRST_PAUSE, False
        while not self._closing:
            try:
                if dead:
                    self._engine.run([PROBE])
                    log.info("engine revived", model=self.name)
                    dead = False
                    self._report(True)
                self._work()
                return
            except BaseException as error:  # SystemExit inside an engine must not end the thread silently
                if not dead:
                    pause = FIRST_PAUSE
                    self._report(False)
                dead = True
                log.error("engine crashed", model=self.name, pause=pause, **describe(error))
                with self._lock:
                    self._lock.wait_for(lambda: self._closing, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                seconds = self._through(batch)
            except BaseException:
                with self._lock:
                    self._scheduler.finish(batch, seconds=None)
                error = EngineCrashed("the engine crashed and is being restarted; try again", retry_after=1.0)
                self._answer(batch.tickets, error, "crashed")
                raise
            with self._lock:
                self._scheduler.finish(batch, seconds=seconds)

    def _next(self) -> Batch[Job] | None:
        """Wait for work; None when closing."""
        while True:
            with self._lock:
                batch, expired = self._scheduler.take(self._clock())
                if batch is None and not expired:
                    if self._closing:
                        return None
                    self._lock.wait()
            self._answer(
                expired,
                DeadlineMissed("the deadline passed while the text waited; allow more time"),
                "expired",
            )
            if batch is not None:
                return batch

    def _through(self, batch: Batch[Job]) -> float | None:
        """Compute and answer a batch; the seconds that the engine took, None when something in it failed."""
        metrics, started = self._metrics, self._clock()
        metrics.batches.labels(batch.close_reason).inc()
        metrics.batch_items.observe(len(batch.tickets))
        metrics.batch_tokens.observe(batch.padded_tokens)
        metrics.padding_tokens.inc(batch.padded_tokens - batch.tokens)
        metrics.processed_tokens.inc(batch.tokens)
        try:
            outcomes = self._compute(batch.tickets)
        finally:
            seconds = self._clock() - started
            metrics.busy_seconds.inc(seconds)
        failures = sum(isinstance(outcome, ServingError) for outcome in outcomes)
        if failures == len(outcomes):
            self._engine.run([PROBE])  # raises when it is the engine that is broken, not the items
        self._deliver(
            [(ticket, self._finished(ticket, outcome, batch, started, seconds))
             for ticket, outcome in zip(batch.tickets, outcomes, strict=True)]
        )  # fmt: skip
        return None if failures else seconds

    def _compute(self, tickets: Sequence[Ticket[Job]]) -> list[EngineOutput | ServingError]:
        """Run the batch; where it fails, run its halves, so that only the item at fault pays."""
        try:
            outputs = self._engine.run([ticket.payload.item for ticket in tickets])
            return list[EngineOutput | ServingError](outputs)
        except EngineDied:
            raise
        except Exception as error:
            if len(tickets) == 1:
                log.error("item failed", model=self.name, tokens=tickets[0].length, **describe(error))
                return [ItemFailed("the model failed on this text; report it with the request id")]
        middle = len(tickets) // 2
        return self._compute(tickets[:middle]) + self._compute(tickets[middle:])

    @staticmethod
    def _finished(
        ticket: Ticket[Job],
        outcome: EngineOutput | ServingError,
        batch: Batch[Job],
        started: float,
        seconds: float,
    ) -> Outcome:
        if isinstance(outcome, ServingError):
            return outcome
        ride = Ride(started - ticket.admitted, seconds, len(batch.tickets), batch.padded_tokens)
        return outcome, ride
