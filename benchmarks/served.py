"""A server in a process of its own, and its metrics: what benchmarks of the service share."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def start(models: Path, log: Path, *flags: str) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """The server's process, and its ports when it is ready."""
    command = [sys.executable, "-m", "serving", "--models", str(models), "--port", "0"]
    command += ["--probe-port", "0", "--metrics-port", "0", "--log-format", "json", *flags]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream)
    ports: dict[str, int] = {}
    while process.poll() is None:
        for line in log.read_text().splitlines():
            entry = json.loads(line) if line.endswith("}") else {}
            ports.update({key: value for key, value in entry.items() if key.endswith("port")})
            if entry.get("event") == "ready":
                return process, ports
        time.sleep(0.5)
    raise SystemExit(f"the server ended: {log.read_text()[-500:]}")


def scraped(port: int) -> dict[str, float]:
    """Every series of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"
    }


def total(series: dict[str, float], name: str, **labels: str) -> float:
    """The sum over a metric's series with these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for key, value in series.items()
        if key.partition("{")[0] == name and all(label in key for label in wanted)
    )


def percentile(series: dict[str, float], name: str, share: float) -> float:
    """The upper bound of the bucket of a histogram in which this share lies."""
    buckets = sorted(
        (float(re.sub(r'.*le="([^"]+)".*', r"\1", key)), value)
        for key, value in series.items()
        if key.startswith(f"{name}_bucket")
    )
    most = buckets[-1][1]
    return next((bound for bound, count in buckets if most and count >= share * most), float("inf"))
