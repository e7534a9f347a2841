"""What every benchmark does alike: contenders take turns, ratios are of medians, and all samples are kept.

It knows nothing of what is measured. Beside wall time it takes the processor time of this process: on a
machine that others use too, the first counts their work and the second does not, so that both together tell a
slow engine from a busy machine.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

__all__ = [
    "RESULTS",
    "Samples",
    "alternate",
    "asked",
    "in_ms",
    "processor",
    "ratio",
    "spread",
    "write_record",
]

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch", "transformers", "tokenizers", "onnxruntime", "openvino", "numpy", "grpcio", "protobuf",
)  # fmt: skip
EXTENSIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")

Samples = dict[str, list[dict[str, float]]]


def alternate(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1, before: int = 0
) -> Samples:
    """Run each contender once a round, in an order that is drawn anew each round.

    `before` runs of its own go before each that counts, which then finds its own data in the caches and its
    own threads awake, as in a program of its own, and not what another contender left there.

    Returns `wall` and `cpu` seconds of every run after the warm-up, by contender.
    """
    shuffler = random.Random(0)
    samples: Samples = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        order = list(contenders)
        shuffler.shuffle(order)
        for name in order:
            for _ in range(before):
                contenders[name]()
            wall, cpu = time.perf_counter(), time.process_time()
            contenders[name]()
            taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            if turn >= warm_up:
                samples[name].append(taken)
    return samples


def ratio(samples: Samples, of: str, to: str, *, clock: str = "wall") -> float:
    """How many times quicker `to` is than `of`: median over median."""
    over = median(taken[clock] for taken in samples[of])
    under = median(taken[clock] for taken in samples[to])
    return over / under if under else float("inf")


def asked(options: Namespace) -> dict[str, Any]:
    """What a run was asked for, as it enters its record: without `out`, and of absolute paths the name alone,
    since where files lie on one machine says nothing to the reader on another."""
    kept = {key: value for key, value in vars(options).items() if key != "out"}
    return {
        key: (value.name if value.is_absolute() else str(value)) if isinstance(value, Path) else value
        for key, value in kept.items()
    }


def in_ms(seconds: Iterable[float]) -> list[float]:
    """Seconds as milliseconds to the hundredth: samples that a record keeps."""
    return [round(1000 * value, 2) for value in seconds]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles: (lower, median, upper)."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4)
    return low, middle, high


def processor() -> dict[str, Any]:
    """What computes: the processor's own name and the vector extensions that decide the order of engines."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    flags = set((re.search(r"flags\s*:\s*(.+)", text) or ["", ""])[1].split())
    return {
        "model": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "extensions": [name for name in EXTENSIONS if name in flags],
    }


def write_record(benchmark: str, record: Mapping[str, Any], *, out: Path, name: str = "") -> Path:
    """Write the record as JSON, with date, machine, load and versions; returns its path."""
    now = datetime.now(UTC)
    whole = {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "processor": processor(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "versions": {package: _version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
        **record,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / "-".join(part for part in (benchmark, name, f"{now:%Y%m%d-%H%M%S}.json") if part)
    path.write_text(_compact(json.dumps(whole, indent=1)) + "\n", encoding="utf-8")
    return path


def _compact(text: str) -> str:
    """Lists of nothing but numbers on one line each: samples fill pages otherwise."""
    return re.sub(
        r"\[\n\s*([-\d][^\[\]{}\"]*?)\n\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
