"""Runs an application until a signal ends it, then lets it drain; it knows signals and no part of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry

from serving import heap
from serving.app import App
from serving.errors import StartError
from serving.settings import Settings
from serving.source import Source

log = structlog.get_logger(__name__)


async def serve(
    settings: Settings,
    *,
    registry: CollectorRegistry,
    source: Source | None = None,
    leave: Callable[[], None] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the grace period. `leave` ends the
    process when all is drained, and is for one that does nothing else (see `App.stop`). Raises `StartError`.
    """
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
            heap.settle()
            log.info("ready", default=app.models.default)
        await stopped
        loading.cancel()
    except StartError:
        await app.stop(settle=0)
        raise
    # Nobody's endpoints wait for a person who pressed Ctrl-C.
    settle = settings.settle_seconds if received[0] is signal.SIGTERM else 0
    stop, impatient = (
        asyncio.create_task(app.stop(settle=settle, leave=leave)),
        asyncio.create_task(again.wait()),
    )
    await asyncio.wait({stop, impatient}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        await app.hurry()
    impatient.cancel()
    await stop
