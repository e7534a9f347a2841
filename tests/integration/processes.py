"""A server in a process of its own with the shipped fake engine: what can be killed, flooded and restarted.

python -m tests.integration.processes --port 0 …      the flags of stratified-serve; ports on stderr as JSON
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """The process, and where it listens."""

    process: subprocess.Popen[str]
    port: int
    metrics: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def resident(self) -> int:
        """Bytes of its memory that are in use."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(*flags: str, port: int = 0, seconds_per_token: float = 0.0) -> Iterator[Served]:
    """A server that is ready; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.integration.processes", "--port", str(port), *flags]
    environment = os.environ | {"SECONDS_PER_TOKEN": str(seconds_per_token)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    ports: dict[str, int] = {}
    try:
        for line in process.stderr:
            entry = json.loads(line)
            ports.update({key: value for key, value in entry.items() if key.endswith("port")})
            if entry["event"] == "ready":
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield Served(process, ports["port"], ports["metrics_port"])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def _jump() -> None:
    """Move this process's wall clock, as far as Python reads it, by up to a year either way."""
    real, far = time.monotonic, random.uniform(-3e7, 3e7)
    time.time = lambda: real() + 1.8e9 + far


def main() -> None:
    """Serve; SIGUSR1 makes the wall clock jump."""
    from prometheus_client import CollectorRegistry

    from serving.engines.fake import FakeSource
    from serving.leaving import leave
    from serving.logs import configure
    from serving.running import serve
    from serving.settings import parse_settings

    plain = ["--models", "unused", "--probe-port", "0", "--metrics-port", "0", "--threads", "1"]
    settings = parse_settings([*plain, *sys.argv[1:]], {}, prog="served", description="")
    configure(level="INFO", fmt="json")
    signal.signal(signal.SIGUSR1, lambda *_: _jump())
    source = FakeSource("none", seconds_per_token=float(os.environ["SECONDS_PER_TOKEN"]))
    asyncio.run(serve(settings, registry=CollectorRegistry(), source=source, leave=leave))


if __name__ == "__main__":
    main()
