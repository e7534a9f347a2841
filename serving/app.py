"""Puts the parts together, starts them step by step, and stops them without losing what was accepted.

It knows every part and no rule of any. Start: bind the ports → answer liveness → load → warm up → ready.
Stop: not ready → answer on while endpoints settle → stop accepting → finish what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import structlog
from prometheus_client import CollectorRegistry

from serving.certificates import Identity
from serving.cpu import available_cores
from serving.deploying import Deployer
from serving.errors import StartError
from serving.fleet import Fleet
from serving.metrics import Metrics
from serving.metrics_http import MetricsServer
from serving.models import Models
from serving.rpc.admin import AdminServicer
from serving.rpc.credentials import build_access
from serving.rpc.guard import admin_guard
from serving.rpc.health import HealthServicer
from serving.rpc.server import build_admin_server, build_probe_server, build_server, listen
from serving.service import Service
from serving.settings import Settings
from serving.source import Source, Store
from serving.watch import Watcher

HEARTBEAT = 0.25  # seconds between measurements of the event loop's lag

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """What was really bound."""

    service: int
    probe: int
    metrics: int
    admin: int = 0
    """0: off."""


class App:
    """One running service; build and use it on one event loop. `source` is where
    the models come from: bundles on disk unless given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        source: Source | None = None,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._threads = settings.threads or available_cores()
        self._source = source
        self.metrics = Metrics(registry)
        self.health = HealthServicer()
        self.models = Models(on_change=self.health.set_ready)
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self.service = Service(
            models=self.models,
            limits=settings.limits,
            metrics=self.metrics,
            workers=self._workers,
            clock=clock,
        )
        deployer = Deployer(
            settings, models=self.models, metrics=self.metrics, clock=clock, threads=self._threads
        )
        self.fleet = Fleet(
            settings, models=self.models, metrics=self.metrics, deployer=deployer, open_source=self._open
        )
        self._server: grpc.aio.Server | None = None
        self._admin_server: grpc.aio.Server | None = None
        self._probe_server: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hurried = asyncio.Event()

    async def listen(self) -> Ports:
        """Bind and answer: liveness from now on, readiness when a model is loaded.

        Raises `PortInUse`, and `BadSettings` for certificates or tokens that are no good, and for an admin
        port that would be open to anyone.
        """
        s = self._settings
        access = build_access(s.security, host=s.host, clock=self._clock, on_identity=self._certified)
        server = build_server(self.service, self.health, self.metrics, s.server_options, access.guard)
        probe_server = build_probe_server(self.health)
        metrics_server = MetricsServer(self.metrics.registry, host=s.host, port=s.metrics_port)
        self._metrics_server = metrics_server
        admin_server, admin_port = self._bind_admin()
        ports = Ports(
            service=listen(server, s.host, s.port, flag="--port", credentials=access.credentials),
            probe=listen(probe_server, s.host, s.probe_port, flag="--probe-port"),
            metrics=metrics_server.port,
            admin=admin_port,
        )
        await server.start()
        await probe_server.start()
        metrics_server.start()
        if admin_server is not None:
            await admin_server.start()
        self._admin_server = admin_server
        self._server, self._probe_server = server, probe_server
        self._tasks.append(asyncio.create_task(self._measure_lag()))
        log.info(
            "listening", host=s.host, port=ports.service, probe_port=ports.probe, metrics_port=ports.metrics
        )
        return ports

    def _bind_admin(self) -> tuple[grpc.aio.Server | None, int]:
        """The operator's server and its port; None and 0 where no port was given."""
        s = self._settings
        if s.admin_port is None:
            return None, 0
        guard = admin_guard(s.admin_host, s.admin_token_file, clock=self._clock)
        admin = AdminServicer(self.fleet, log_level=s.log_level)
        server = build_admin_server(admin, self.metrics, s.server_options, guard)
        port = listen(server, s.admin_host, s.admin_port, flag="--admin-port")
        log.info("admin port bound", host=s.admin_host, admin_port=port, asks_for_token=guard is not None)
        return server, port

    async def load_models(self) -> None:
        """Load the default model, then the others; raises `BadStore` when the default cannot be loaded."""
        store = await self.fleet.start()
        if self._settings.watch_seconds:
            watcher = Watcher(self.fleet, self.metrics, selected=store.selected)
            self._tasks.append(asyncio.create_task(watcher.run(self._settings.watch_seconds)))

    async def stop(self, *, settle: float) -> None:
        """Stop for good; what was accepted is answered within the grace period."""
        self.health.close()
        for task in self._tasks:
            task.cancel()
        if self._admin_server is not None:
            await self._admin_server.stop(0)
        if self._server is not None:
            log.info("draining", settle=settle, grace=self._settings.grace_seconds)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), settle)
            self.service.draining.set()
            await self._server.stop(self._settings.grace_seconds)
        await self.fleet.close()
        if self._probe_server is not None:
            await self._probe_server.stop(0)
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.close)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._workers.shutdown()
        if self._server is not None:
            log.info("stopped")

    async def hurry(self) -> None:
        """Cut short a stop that is under way: what is not answered by now is cancelled."""
        self._hurried.set()
        if self._server is not None:
            await self._server.stop(0)

    def _open(self) -> tuple[Source, Store]:
        source = self._source
        if source is None:
            # These bring torch, which takes seconds: the ports answer before.
            from serving.engines.choice import Wishes
            from serving.loading import BundleSource

            s = self._settings
            wishes = Wishes(s.engine, s.precision, s.device, self._threads)
            source = BundleSource(s.models, s.model, wishes, self._clock)
        return source, source.open()

    def _certified(self, identity: Identity) -> None:
        self.metrics.certificate_expiry.labels("service").set(identity.expires)
        log.info("certificate in force", expires=identity.expires_at)

    async def _measure_lag(self) -> None:
        while True:
            before = self._clock()
            await asyncio.sleep(HEARTBEAT)
            self.metrics.loop_lag.observe(max(0.0, self._clock() - before - HEARTBEAT))


async def serve(settings: Settings, *, registry: CollectorRegistry, source: Source | None = None) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the grace period. Raises `StartError`."""
    loop, stopping, again = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        (again if received else stopping).set()
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    app = App(settings, registry=registry, source=source)
    stopped = asyncio.create_task(stopping.wait())
    try:
        await app.listen()
        loading = asyncio.create_task(app.load_models())
        await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()  # raises what loading raised
            log.info("ready", default=app.models.default)
        await stopped
        loading.cancel()
    except StartError:
        await app.stop(settle=0)
        raise
    # Nobody's endpoints wait for a person who pressed Ctrl-C.
    settle = settings.settle_seconds if received[0] is signal.SIGTERM else 0
    stop, impatient = asyncio.create_task(app.stop(settle=settle)), asyncio.create_task(again.wait())
    await asyncio.wait({stop, impatient}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        await app.hurry()
    impatient.cancel()
    await stop
