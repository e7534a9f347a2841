"""A running service for tests of its clients: with the shipped fake engine on a thread, or real in a process.

Ports are handed out by the system; everything is on loopback, and stopped at the end of the `with`.
"""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from serving.app import App
from serving.client import CallFailed, Client
from serving.engines.fake import FakeSource
from serving.logs import configure
from tests.serving.conftest import settings


@contextmanager
def fake_service(source: FakeSource | None, *, models: Path = Path("unused"), port: int = 0) -> Iterator[str]:
    """A service on a thread, with the models of `source`, or without one the bundles in `models`; yields its
    target.
    """
    configure(level="ERROR", fmt="json", stream=io.StringIO())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def begin() -> tuple[App, int]:
        app = App(
            settings(models=models, load="all", port=port, engine="torch"),
            registry=CollectorRegistry(),
            source=source,
        )
        ports = await app.listen()
        await app.load_models()
        return app, ports.service

    app, bound = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        for engine in source.engines.values() if source else ():
            engine.gate.set()
        asyncio.run_coroutine_threadsafe(app.stop(settle=0), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@contextmanager
def real_service(models: Path, *flags: str, port: int = 0) -> Iterator[str]:
    """`stratified-serve` in a process of its own on the bundles of `models`, ready; yields its target."""
    port = port or free_port()
    command = [sys.executable, "-m", "serving", "--models", str(models), "--port", str(port), *flags]
    command += ["--probe-port", "0", "--metrics-port", "0", "--settle-seconds", "0", "--engine", "torch"]
    process = subprocess.Popen([*command, "--load", "all", "--threads", "1"], stderr=subprocess.DEVNULL)
    try:
        target = f"127.0.0.1:{port}"
        _wait(target, process)
        yield target
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(target: str, process: subprocess.Popen[bytes], patience: float = 120) -> None:
    end = time.monotonic() + patience
    with Client(target, attempts=1) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.health():
                    return
            except CallFailed:
                pass
            time.sleep(0.2)
    raise AssertionError(f"the service did not become ready: exit code {process.poll()}")
