"""Servers and the load as processes of their own: started, waited for, measured, ended.

Each is pinned to the cores it is given, so that server and load do not take each other's.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "cores", "free_ports", "load", "our_server", "pinned", "processor_seconds", "running", "wait_for_port",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 180.0
PORTS = range(20_000, 32_000)  # Linux gives 32,768 and above by itself (ip_local_port_range)


def cores() -> tuple[set[int], set[int]]:
    """Cores of the server and of the load: one each where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    return {allowed[0]}, {allowed[-1]}


@contextmanager
def pinned(to: set[int] | None) -> Iterator[None]:
    """This thread, and what it starts, on these cores until the block ends; on None where it was."""
    before = os.sched_getaffinity(0)
    if to:
        os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to whoever asks for any: another
    process would otherwise be given one between this answer and the server's start.
    """
    ports: list[int] = []
    for port in random.sample(PORTS, k=min(len(PORTS), 200 + count)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"only {len(ports)} of {count} ports are free; end what listens on {PORTS}")


@contextmanager
def running(
    command: Sequence[str],
    *,
    on: set[int] | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, until the block ends; then it is asked to end, and killed if it does not."""

    def pin() -> None:
        if on:
            os.sched_setaffinity(0, on)

    with (log or Path(os.devnull)).open("wb") as told:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=told,
            stderr=subprocess.STDOUT,
            preexec_fn=pin,  # noqa: PLW1509  no threads were started yet
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, *, patience: float = PATIENCE) -> None:
    """Until something listens; raises `RuntimeError` when the process ends first, or time is up."""
    started = time.monotonic()
    while time.monotonic() - started < patience:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it listened; see its log")
        with socket.socket() as attempt:
            attempt.settimeout(1)
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port} after {patience:.0f} s; see the server's log")


@contextmanager
def our_server(
    models: Path, *flags: str, on: set[int] | None = None, log: Path | None = None
) -> Iterator[tuple[str, int]]:
    """Our service with a bundle, ready to answer; its target and its process."""
    service, probe, metrics = free_ports(3)
    command = [
        sys.executable, "-m", "serving", "--models", str(models), "--port", str(service), "--probe-port",
        str(probe), "--metrics-port", str(metrics), "--log-level", "WARNING", "--settle-seconds", "0",
        "--watch-seconds", "0", *flags,
    ]  # fmt: skip
    with running(command, on=on, log=log) as process:
        wait_for_port(process, service)
        _wait_until_ready(process, f"127.0.0.1:{service}")
        yield f"127.0.0.1:{service}", process.pid


def processor_seconds(process: int) -> float:
    """What a process has computed so far, in all its threads; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_until_ready(process: subprocess.Popen[bytes], target: str) -> None:
    from serving.client import Client

    started = time.monotonic()
    with Client(target) as client:
        while not _healthy(client):
            if process.poll() is not None or time.monotonic() - started > PATIENCE:
                raise RuntimeError(f"the service at {target} did not become ready; see its log")
            time.sleep(0.2)


def _healthy(client: Any) -> bool:
    """Whether it says so; a busy machine may be too slow even to answer that."""
    from serving.client import CallFailed

    try:
        return bool(client.health(deadline=10.0))
    except CallFailed:
        return False


def load(target: str, texts: Path, *flags: str, on: set[int] | None = None) -> dict[str, Any]:
    """Run the load in its process; what it measured."""

    def pin() -> None:
        if on:
            os.sched_setaffinity(0, on)

    command = [sys.executable, "-m", "benchmarks.load", "--target", target, "--texts", str(texts), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, preexec_fn=pin)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
