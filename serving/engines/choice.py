"""Which engine runs a bundle: the one that was asked for, or the fastest of those that give the same numbers.

It knows which engines there are and what each needs; imports of torch and onnxruntime wait until one is
wanted. Which engine is faster differs between machines, so "auto" measures, and never goes by name. It stays
with exact numbers: the int8 file is run only when `precision` says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Literal

from serving.encoding import Encoder
from serving.engines.base import Engine
from serving.errors import BadStore, EmptyText
from serving.types import EngineItem, Truncation
from stratified_models.bundle import Bundle, check_parity, load_model

EngineName = Literal["auto", "torch", "onnx"]
Precision = Literal["fp32", "int8"]
Announce = Callable[[str], None]
Build = Callable[[], Engine]

TOLERANCE = 1e-3  # of fp32 logits, as for torch
LENGTHS = (16, 64, 128)  # tokens of the rows that "auto" compares engines by
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say about engines."""

    engine: EngineName = "auto"
    precision: Precision = "fp32"
    device: str = "auto"
    threads: int = 1


def choose_engine(
    bundle: Bundle, encoder: Encoder, wishes: Wishes, *, clock: Callable[[], float], announce: Announce
) -> Engine:
    """Build the engine; raises `BadStore` when it cannot be had, `ModelError` when it does not compute
    what the manifest says.
    """
    file = _export_name(bundle, wishes.precision)
    builders: dict[str, Build] = {
        "torch": lambda: _torch(bundle, wishes, announce),
        "onnx": lambda: _onnx(bundle, file, encoder, wishes, announce),
    }
    reasons = {"torch": _why_no_torch(wishes), "onnx": _why_no_onnx(bundle, file, wishes)}
    if wishes.engine != "auto":
        if reasons[wishes.engine]:
            raise BadStore(f"--engine {wishes.engine}: {reasons[wishes.engine]}")
        return builders[wishes.engine]()
    possible = [name for name, reason in reasons.items() if not reason]
    if not possible:
        raise BadStore(f"no engine can run this bundle; torch: {reasons['torch']}; onnx: {reasons['onnx']}")
    if len(possible) == 1 or (wishes.device != "cpu" and _has_gpu()):
        return builders[possible[0]]()
    engines = [builders[name]() for name in possible]
    announce("comparing the engines")
    return fastest(engines, longest=bundle.manifest.max_length, clock=clock)


def fastest(engines: Sequence[Engine], *, longest: int, clock: Callable[[], float]) -> Engine:
    """The engine with the least sum of median times over `LENGTHS`, by runs in alternation."""
    rows = [EngineItem(ids=(1,) * length) for length in sorted({min(length, longest) for length in LENGTHS})]
    totals = [0.0] * len(engines)
    for row in rows:
        times: list[list[float]] = [[] for _ in engines]
        for _ in range(ROUNDS + 1):
            for place, engine in enumerate(engines):
                started = clock()
                engine.run([row])
                times[place].append(clock() - started)
        for place, taken in enumerate(times):
            totals[place] += median(taken[1:])  # the first round pays for allocations
    return engines[totals.index(min(totals))]


def parity(engine: Engine, encoder: Encoder, bundle: Bundle) -> float:
    """Largest distance of the engine's logits from those in the manifest; texts without a token are left
    out, for no engine is ever asked about them.
    """
    worst = 0.0
    for text, expected in zip(bundle.manifest.parity.texts, bundle.manifest.parity.logits, strict=True):
        try:
            ids = encoder.encode(text, Truncation.HEAD).ids
        except EmptyText:
            continue
        found = engine.run([EngineItem(ids)])[0].logits
        worst = max(worst, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
    return worst


def pad_id(bundle: Bundle) -> int:
    """The id that fills short rows, from the model's configuration."""
    config = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    return int(config.get("pad_token_id") or 0)


def _why_no_torch(wishes: Wishes) -> str:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            return f"{package} is not installed; install it, or export the bundle and take --engine onnx"
    return "torch runs fp32 only; take --engine onnx" if wishes.precision == "int8" else ""


def _why_no_onnx(bundle: Bundle, file: str, wishes: Wishes) -> str:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; install it, or take --engine torch"
    if wishes.device == "cuda":
        return "it computes on the CPU; set --device cpu, or take --engine torch"
    if not file:
        quantize = " --quantize int8" if wishes.precision == "int8" else ""
        return (
            f"the bundle holds no ONNX file in {wishes.precision}; write one with "
            f"`stratified-train export {bundle.path} --format onnx{quantize}`"
        )
    return ""


def _export_name(bundle: Bundle, precision: str) -> str:
    """The bundle's ONNX file of this precision; empty when there is none."""
    exports = bundle.manifest.exports.items()
    return next((name for name, e in exports if (e.format, e.precision) == ("onnx", precision)), "")


def _has_gpu() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _torch(bundle: Bundle, wishes: Wishes, announce: Announce) -> Engine:
    import torch

    from serving.engines.torch import TorchEngine, choose_device, own_memory
    from stratified_models import load_tokenizer

    announce("loading the weights into torch")
    torch.set_num_threads(wishes.threads)
    model = own_memory(load_model(bundle))
    announce("checking parity")
    check_parity(bundle, model, load_tokenizer(bundle.path, max_length=bundle.manifest.max_length))
    try:
        return TorchEngine(model, device=choose_device(wishes.device))
    except RuntimeError as error:
        raise BadStore(
            f"device {wishes.device!r} cannot be used ({error}); set --device cpu or auto"
        ) from None


def _onnx(bundle: Bundle, name: str, encoder: Encoder, wishes: Wishes, announce: Announce) -> Engine:
    from serving.engines.onnx import OnnxEngine

    announce(f"loading {name}")
    engine = OnnxEngine(
        bundle.path / name, precision=wishes.precision, pad=pad_id(bundle), threads=wishes.threads
    )
    announce("checking parity")
    # Rounding to int8 may fall the other way on another processor: twice what the export recorded.
    allowed = TOLERANCE if wishes.precision == "fp32" else TOLERANCE + 2 * bundle.manifest.exports[name].error
    found = parity(engine, encoder, bundle)
    if not found <= allowed:
        raise BadStore(
            f"{name}: logits {found:.3g} from the recorded ones, above {allowed:.3g}; export again"
        )
    return engine
