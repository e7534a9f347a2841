"""The way of items through one engine: an event loop puts them in, threads take them through.

It owns the queue and the futures of those who wait; the threads are those of `serving.crew`. It knows no
text, no label and no wire. Every accepted item is answered exactly once: with its output, or with an error of
`serving.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from serving.batches import Ticket
from serving.crew import Crew, Desk, Job, Outcome
from serving.engines.base import Engine
from serving.errors import DeadlineMissed, Draining, Refused
from serving.held import Held
from serving.logs import describe
from serving.metrics import Metrics
from serving.scheduler import Scheduler
from serving.types import EngineItem

__all__ = ["Job", "Lane", "Outcome"]

LOOKS = 10  # times that a hang is looked for within the time that an engine may take
LONGEST_LOOK = 1.0  # seconds
SHORTEST = 3  # tokens: what begins a text, what ends it, and one between them

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a caller who is held back wants: its jobs, and the future that gets their tickets."""

    jobs: Sequence[tuple[Job, int]]
    deadline: float
    caller: str
    tickets: asyncio.Future[list[Ticket[Job]]]


class Lane:
    """One engine with its queue, one thread for each of `engines`, which are the same model. Build and use it
    on one event loop; `on_health` and `on_hopeless` are called on that loop.
    """

    def __init__(
        self,
        *,
        name: str,
        engines: Sequence[Engine],
        scheduler: Scheduler[Job],
        metrics: Metrics,
        clock: Callable[[], float],
        on_health: Callable[[bool], None] = lambda healthy: None,
        on_hopeless: Callable[[], None] = lambda: None,
        hang_seconds: float = math.inf,
    ) -> None:
        self.name = name
        self._scheduler, self._metrics, self._clock = scheduler, metrics, clock
        self._desk = Desk(scheduler)
        self._lock = self._desk.lock
        self._loop = asyncio.get_running_loop()
        self._held: Held[Request] = Held()
        self._crew = Crew(
            name=name,
            engines=engines,
            desk=self._desk,
            metrics=metrics,
            clock=clock,
            deliver=self._deliver,
            on_health=lambda healthy: self._on_loop(lambda: on_health(healthy)),
            on_hopeless=lambda: self._on_loop(on_hopeless),
            hang_seconds=hang_seconds,
        )
        self._look_seconds = min(LONGEST_LOOK, hang_seconds / LOOKS)
        self._looking: asyncio.Task[None] | None = None
        self._watch()

    @property
    def batch_tokens(self) -> int:
        """The most tokens of a batch, with padding."""
        return self._scheduler.policy.batch_tokens

    @property
    def padding_tokens(self) -> int:
        """The most padding that one text may bring into a batch."""
        return self._scheduler.policy.padding_tokens

    @property
    def queue_tokens(self) -> int:
        """The most tokens that may wait."""
        return self._scheduler.policy.queue_tokens

    @property
    def waiting(self) -> int:
        """How many items wait now."""
        return self._scheduler.queued_items

    def start(self) -> None:
        """Start the engine's threads, and to look whether one hangs."""
        self._crew.start()
        self._looking = asyncio.create_task(self._look())

    def knock(self, count: int, *, deadline: float, caller: str) -> None:
        """Whether `count` items, were they as short as can be, would be let in now; nothing is queued.

        To be asked before work is put into them: under a flood most are turned away here, and what that costs
        is what an overloaded server has to spend. Raises `QueueFull`, `WouldMissDeadline` or `Draining`.
        """
        if SHORTEST * count > self.queue_tokens:
            return  # no matter of now or later: who counts the tokens will say so
        try:
            with self._lock:
                self._check_open()
                lengths = [SHORTEST] * count
                self._scheduler.check(lengths, now=self._clock(), deadline=deadline, caller=caller)
        except Refused as refusal:
            self._metrics.rejected.labels(refusal.reason).inc()
            raise

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
        timeout = None if deadline == math.inf else max(0.0, deadline - self._clock())
        futures: list[asyncio.Future[Outcome]] = [self._loop.create_future() for _ in items]
        tickets: list[Ticket[Job]] = []
        try:
            async with asyncio.timeout(timeout):
                tickets += await self._admit(items, futures, deadline, patient, caller)
                return [await future for future in futures]
        except TimeoutError:
            self._abandon(tickets, "expired")
            raise DeadlineMissed("the deadline passed while the text waited; allow more time") from None
        except asyncio.CancelledError:
            self._abandon(tickets, "cancelled")
            raise

    async def close(self) -> None:
        """Stop the threads; what still waits is answered with `Draining`."""
        with self._lock:
            self._desk.closing = True
            left = self._scheduler.clear()
            self._lock.notify_all()
        self._crew.drop(left, Draining("the service is stopping; ask another one"), "closed")
        self._let_in()
        await asyncio.to_thread(self._crew.join)
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        """Look for threads that hang, until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                self._crew.check()
            except Exception as error:  # a thread may not be startable: the next look tries again
                log.error("look for hangs failed", model=self.name, **describe(error))

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
        self,
        items: Sequence[EngineItem],
        futures: Sequence[asyncio.Future[Outcome]],
        deadline: float,
        patient: bool,
        caller: str,
    ) -> list[Ticket[Job]]:
        jobs = [(Job(item, future), len(item.ids)) for item, future in zip(items, futures, strict=True)]
        request = Request(jobs, deadline, caller, self._loop.create_future())
        if not (patient and self._held.has(caller)):
            try:
                return self._enter(request)
            except Refused as refusal:
                if not patient or self._clock() >= deadline:
                    self._metrics.rejected.labels(refusal.reason).inc()
                    raise
        number = self._held.add(caller, request)
        try:
            return await request.tickets
        except asyncio.CancelledError:
            self._held.remove(caller, number)
            if request.tickets.done() and not request.tickets.cancelled():  # let in at this very moment
                self._abandon(request.tickets.result(), "cancelled")
            raise

    def _enter(self, request: Request) -> list[Ticket[Job]]:
        """Queue the jobs; raises `Refused`, and `Draining` when the lane is closing."""
        with self._lock:
            self._check_open()
            tickets = self._scheduler.admit(
                request.jobs, now=self._clock(), deadline=request.deadline, caller=request.caller
            )
            self._lock.notify_all()
            return tickets

    def _check_open(self) -> None:
        if self._desk.closing:
            raise Draining("the service is stopping; ask another one")

    def _let_in(self) -> None:
        """There may be room: let those in who were held back."""

        def attempt(request: Request) -> bool:
            if request.tickets.done():
                return True  # gone
            try:
                request.tickets.set_result(self._enter(request))
            except Refused:
                return False
            except Draining as error:
                request.tickets.set_exception(error)
            return True

        self._held.let_in(attempt)

    def _abandon(self, tickets: Sequence[Ticket[Job]], reason: str) -> None:
        with self._lock:
            dropped = sum(self._scheduler.cancel(ticket) for ticket in tickets)
        self._metrics.dropped.labels(reason).inc(dropped)
        if dropped:
            self._let_in()

    def _deliver(self, outcomes: Sequence[tuple[Ticket[Job], Outcome]]) -> None:
        """On any thread: hand outcomes to those who wait."""

        def deliver() -> None:
            for ticket, outcome in outcomes:
                future = ticket.payload.owner
                if isinstance(future, asyncio.Future) and not future.done():  # its caller may have gone
                    future.set_result(outcome)
            self._let_in()

        self._on_loop(deliver)

    def _on_loop(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(act)
