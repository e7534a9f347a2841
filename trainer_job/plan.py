"""What a run would do, from the configuration alone: units, steps, devices, and a rough size and time.

It opens no data set, no weights beyond a local config.json, no GPU and no network; so sizes that only the
data know are said to be unknown, and times are orders of magnitude.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from trainer_job.config import RunConfig
from trainer_job.errors import ResultsMismatch
from trainer_job.folder import check_folder
from trainer_job.launch import Devices, available_cores
from trainer_job.units import Layout, Unit, config_hash, is_complete, planned_units

MEAN_TOKENS = 40  # a row of mixed reviews, sentences and tweets; fewer when max_length cuts
CORE_FLOPS = 45e9  # sustained in training by one x86 core with AVX2, fp32
GPU_FLOPS = 60e12  # by one data-centre GPU, bf16
GROWTH = {
    "none": 1.0,
    "attention": 1.07,
    "routing": 1.10,
    "layers": 1.06,
    "moe": 1.3,
}  # time, measured on a CPU
UNMEASURED = 1.1  # of a variant without an entry: about what those take that keep the encoder's networks


@dataclass(frozen=True)
class Plan:
    """The units and what they are expected to cost; None where only the data know. `refusal` says why `run`
    would refuse the results folder.
    """

    units: list[tuple[Unit, bool]]
    devices: Devices
    steps: int | None
    seconds: float | None
    disk_bytes: int
    refusal: str | None = None

    @property
    def to_do(self) -> int:
        """Units that are not complete yet."""
        return sum(not done for _, done in self.units)


def make_plan(config: RunConfig, devices: Devices, *, units: Sequence[Unit] | None = None) -> Plan:
    """Work out the plan of a configuration, or of a shard's units of it, on these devices."""
    layout = Layout.of(config)
    chosen = planned_units(config) if units is None else units
    digest = config_hash(config)
    known = [(unit, is_complete(layout.unit(unit), config_digest=digest)) for unit in chosen]
    width, blocks, vocabulary = backbone_size(config.model.backbone)
    parameters = 12 * blocks * width * width + vocabulary * width
    training = config.training
    rows = config.data.train_samples
    steps = training.max_steps
    if config.data.samples_per_domain is not None:
        rows = config.data.samples_per_domain * len(config.data.trained_domains)
    if steps is None and rows is not None:
        steps = max(1, math.ceil(training.epochs * max(1, rows // training.batch_size)))
    seconds = None
    if steps is not None:
        tokens = steps * training.batch_size * min(MEAN_TOKENS, config.model.max_length)
        at_once = devices.ranks * devices.lanes
        speed = GPU_FLOPS if devices.kind == "cuda" else CORE_FLOPS * available_cores() / at_once
        per_unit = 6 * 12 * blocks * width * width * tokens / (speed * at_once)
        seconds = sum(per_unit * GROWTH.get(unit.base, UNMEASURED) for unit, done in known if not done)
    checkpoints = 12 * parameters * (training.save_total_limit + 1)  # weights and two moments, fp32
    return Plan(
        units=known,
        devices=devices,
        steps=steps,
        seconds=seconds,
        disk_bytes=checkpoints + 4 * parameters * (len(known) + len(config.variants)),
        refusal=_refusal(layout, config),
    )


def _refusal(layout: Layout, config: RunConfig) -> str | None:
    try:
        check_folder(layout, config)
    except ResultsMismatch as error:
        return str(error)
    return None


def backbone_size(name: str) -> tuple[int, int, int]:
    """(width, blocks, vocabulary) out of a local config.json; DistilBERT-base's where none is at hand."""
    for folder in _folders(name):
        for path in (folder / "config.json", folder / "model" / "config.json"):
            if path.is_file():
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                width = found.get("hidden_size") or found.get("dim") or 768
                blocks = found.get("num_hidden_layers") or found.get("n_layers") or 6
                return int(width), int(blocks), int(found.get("vocab_size", 30522))
    return 768, 6, 30522


def _folders(name: str) -> list[Path]:
    if not name.startswith("package:"):
        return [Path(name)]
    spec = importlib.util.find_spec(name.removeprefix("package:").partition(".")[0])
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def faster_settings(
    config: RunConfig, devices: Devices, *, cpuinfo: Path = Path("/proc/cpuinfo")
) -> list[str]:
    """Settings left open that would train faster on this machine's processor; none for a GPU."""
    if devices.kind != "cpu":
        return []
    found = []
    if config.hardware.precision == "auto" and multiplies_in_bf16(cpuinfo):
        found.append("hardware.precision=bf16")
    if config.model.attention_dropout is None and config.model.dropout != 0:
        found.append("model.attention_dropout=0")
    return found


def multiplies_in_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for it, as far as Linux tells; False elsewhere."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})  # the last one is ARM's


def duration(seconds: float | None) -> str:
    """Seconds as people say them, roughly."""
    if seconds is None:
        return "unknown until the data are read"
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def print_plan(config: RunConfig, plan: Plan, stream: TextIO) -> None:
    """Write the plan for people."""
    data, training = config.data, config.training
    rows = "all" if data.train_samples is None else f"{data.train_samples:,}"
    if data.samples_per_domain is not None:
        rows = f"{data.samples_per_domain:,} times {len(data.trained_domains)}"
    held = f"; {data.hold_out} held out" if data.hold_out else ""
    steps = "unknown until the data are read" if plan.steps is None else f"{plan.steps:,} a unit"
    lines = [
        ("results", str(config.results)),
        ("backbone", f"{config.model.backbone}, up to {config.model.max_length} tokens"),
        ("domains", f"{', '.join(data.trained_domains)}; {rows} training rows{held}"),
        ("devices", plan.devices.describe()),
        ("strategy", plan.devices.reason),
        ("batch", f"{training.batch_size} rows over all processes, {training.epochs:g} epochs"),
        ("steps", steps),
        ("units", f"{len(plan.units)}, of which {plan.to_do} to do"),
        ("time", f"{duration(plan.seconds)}, in order of magnitude"),
        ("disk", f"about {plan.disk_bytes / 2**30:.1f} GiB at most"),
    ]
    if faster := faster_settings(config, plan.devices):
        lines.append(("faster", f"{' '.join(faster)} (docs/performance.md, Training on a CPU)"))
    if plan.refusal is not None:
        lines.append(("refused", plan.refusal))
    for name, text in lines:
        stream.write(f"{name:<10} {text}\n")
    for unit, done in plan.units:
        stream.write(f"  {unit.name:<16} {'complete' if done else 'to do'}\n")
