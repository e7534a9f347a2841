"""Puts the parts together, starts them step by step, and stops them without losing what was accepted.

It knows every part and no rule of any. Start: bind the ports → answer liveness → load → warm up → ready.
Stop: not ready → answer on while endpoints settle → hold new calls until nobody comes → leave, or close
the ports and finish what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
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
from serving.fleet import Fleet
from serving.memory import MIB, Memory
from serving.metrics import Metrics
from serving.metrics_http import MetricsServer
from serving.models import Models
from serving.pipeline import Pipeline
from serving.rpc.admin import AdminServicer
from serving.rpc.credentials import build_access
from serving.rpc.door import Door
from serving.rpc.guard import admin_access
from serving.rpc.health import HealthServicer
from serving.rpc.interceptors import EdgeInterceptor
from serving.rpc.server import build_admin_server, build_probe_server, build_server, listen
from serving.service import Service
from serving.settings import Settings
from serving.shadow import Shadow
from serving.source import Source, Store
from serving.stages import Stages, Tracing
from serving.tracing import open_tracing
from serving.traffic import Traffic
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
        draw: Callable[[], float] = random.random,
        tracing: Tracing | None = None,
    ) -> None:
        """`draw` gives numbers in [0, 1), by which canary and shadow get their shares; `tracing` is as the
        settings say unless given.

        Raises `BadSettings` when tracing is wanted and cannot be had.
        """
        self._settings, self._clock = settings, clock
        self._threads = max(1, (settings.threads or available_cores()) // settings.workers)
        self._source = source
        self._tracing = tracing or open_tracing(settings.otlp_endpoint, clock=clock)
        self.metrics = Metrics(registry)
        self._stages = Stages(self.metrics, self._tracing)
        self.health = HealthServicer()
        self.models = Models(on_change=self.health.set_ready)
        # More of them would take the cores from the engine, and the event loop's turn with them.
        tokenizers = max(1, available_cores() // 2)
        self._workers = ThreadPoolExecutor(max_workers=tokenizers, thread_name_prefix="tokenize")
        self.service, self.shadow = self._build_service(draw)
        deployer = Deployer(
            settings,
            models=self.models,
            metrics=self.metrics,
            clock=clock,
            threads=self._threads,
            on_hopeless=self.health.give_up,
        )
        self.fleet = Fleet(
            settings,
            models=self.models,
            metrics=self.metrics,
            deployer=deployer,
            memory=Memory(
                settings.model_memory * MIB,
                on_change=lambda name, size: self.metrics.memory.labels(name).set(size),
            ),
            open_source=self._open,
        )
        self._server: grpc.aio.Server | None = None
        self._admin_server: grpc.aio.Server | None = None
        self._probe_server: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hurried, self._door = asyncio.Event(), Door()

    def _build_service(self, draw: Callable[[], float]) -> tuple[Service, Shadow]:
        plan, limits = self._settings.traffic, self._settings.limits
        pipeline = Pipeline(
            limits=limits,
            metrics=self.metrics,
            stages=self._stages,
            workers=self._workers,
            clock=self._clock,
        )
        shadow = Shadow(
            plan.shadow,
            plan.shadow_percent,
            models=self.models,
            pipeline=pipeline,
            metrics=self.metrics,
            draw=draw,
            clock=self._clock,
        )
        service = Service(
            models=self.models,
            limits=limits,
            pipeline=pipeline,
            traffic=Traffic(plan, models=self.models, metrics=self.metrics, draw=draw),
            shadow=shadow,
            clock=self._clock,
        )
        return service, shadow

    async def listen(self) -> Ports:
        """Bind and answer: liveness from now on, readiness when a model is loaded.

        Raises `PortInUse`, and `BadSettings` for certificates or tokens that are no good, and for an admin
        port that would be open to anyone.
        """
        s = self._settings
        access = build_access(
            s.security,
            host=s.host,
            clock=self._clock,
            on_identity=lambda identity: self._certified("service", identity),
        )
        edge = EdgeInterceptor(
            self.metrics, self._stages, guard=access.guard, tracing=self._tracing, door=self._door
        )
        server = build_server(self.service, self.health, self.metrics, s.server_options, edge)
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
        access = admin_access(
            s.admin_security,
            host=s.admin_host,
            clock=self._clock,
            on_identity=lambda identity: self._certified("admin", identity),
        )
        admin = AdminServicer(self.fleet, log_level=s.log_level)
        edge = EdgeInterceptor(self.metrics, self._stages, guard=access.guard, tracing=self._tracing)
        server = build_admin_server(admin, self.metrics, s.server_options, edge)
        port = listen(server, s.admin_host, s.admin_port, flag="--admin-port", credentials=access.credentials)
        log.info(
            "admin port bound",
            host=s.admin_host,
            admin_port=port,
            asks_for_token=access.guard is not None,
            tls=access.credentials is not None,
        )
        return server, port

    async def load_models(self) -> None:
        """Load the default model, then the others; raises `BadStore` when the default cannot be loaded."""
        store = await self.fleet.start()
        if self._settings.shadow_model:
            self._tasks.append(asyncio.create_task(self.shadow.run()))
        if self._settings.watch_seconds:
            watcher = Watcher(self.fleet, self.metrics, selected=store.selected)
            self._tasks.append(asyncio.create_task(watcher.run(self._settings.watch_seconds)))

    async def stop(self, *, settle: float, leave: Callable[[], None] | None = None) -> None:
        """Stop for good; what was accepted is answered within the grace period.

        `leave` ends the process. It is called last, with the service's port still open, where all that was
        accepted is answered; else, and without it, the port is closed here.
        """
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
            grace = self._settings.grace_seconds
            if not await self._door.close(self._server, grace, leaving=leave is not None):
                leave = None
        await self.fleet.close()
        if self._probe_server is not None:
            await self._probe_server.stop(0)
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.close)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._workers.shutdown()
        await asyncio.to_thread(self._tracing.close)
        if self._server is not None:
            log.info("stopped")
            if leave is not None:
                await self._door.leave()
                leave()

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
            wishes = Wishes(s.engine, s.precision, s.device, self._threads, s.workers, s.bounds)
            source = BundleSource(s.models, s.model, wishes, self._clock)
        return source, source.open()

    def _certified(self, port: str, identity: Identity) -> None:
        self.metrics.certificate_expiry.labels(port).set(identity.expires)
        log.info("certificate in force", port=port, expires=identity.expires_at)

    async def _measure_lag(self) -> None:
        while True:
            before = self._clock()
            await asyncio.sleep(HEARTBEAT)
            self.metrics.loop_lag.observe(max(0.0, self._clock() - before - HEARTBEAT))
