"""How each engine is made from a bundle, and why one cannot be: a line with the cure.

It knows which packages, files and devices an engine needs; imports of torch, onnxruntime and openvino wait
until one is wanted. Which engine is taken is decided in `choice`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from serving.encoding import Encoder
from serving.engines.base import Engine
from serving.engines.buckets import Bounds
from serving.errors import BadStore, EmptyText
from serving.types import EngineItem, Truncation
from stratified_models import openvino_runtime
from stratified_models.bundle import Bundle, check_parity, load_model

__all__ = ["ENGINES", "Announce", "EngineName", "Precision", "Wishes", "build", "pad_id", "parity", "why_not"]

EngineName = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
Announce = Callable[[str], None]

GPUS = ("nvidia[0-9]*", "dxg", "kfd")  # devices of CUDA, of CUDA under Windows, of ROCm
ENGINES = ("torch", "onnx", "openvino")
TOLERANCE = 1e-3  # of fp32 logits
TOLERANCE_BF16 = 0.05  # 8 bits of mantissa, over six blocks
FORMATS = {"onnx": ("onnx",), "openvino": ("openvino", "onnx")}  # of exports, what each runs, best first


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say about engines. Each of `workers` threads computes with `threads`."""

    engine: EngineName = "auto"
    precision: Precision = "fp32"
    device: str = "auto"
    threads: int = 1
    workers: int = 1
    bounds: Bounds = field(default_factory=Bounds)


def why_not(name: str, bundle: Bundle, wishes: Wishes) -> str:
    """Why this engine cannot run the bundle as wished, and the cure; empty when it can."""
    if name == "torch":
        return _why_no_torch(wishes)
    if name == "onnx":
        return _why_no_onnx(bundle, wishes)
    return _why_no_openvino(bundle, wishes)


def build(name: str, bundle: Bundle, encoder: Encoder, wishes: Wishes, announce: Announce) -> Engine:
    """The engine, whose parity with the manifest was checked.

    Raises:
        BadStore: it computes something else, or the device cannot be used.
        ModelError: the file is no graph of a bundle.
    """
    if name == "torch":
        return _torch(bundle, encoder, wishes, announce)
    engine = (
        _onnx(bundle, wishes, announce) if name == "onnx" else _openvino(bundle, encoder, wishes, announce)
    )
    announce("checking parity")
    _check(engine, _export_name(bundle, name, wishes.precision), encoder, bundle)
    return engine


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


def _check(engine: Engine, file: str, encoder: Encoder, bundle: Bundle) -> None:
    """Rounding to int8 may fall the other way on another processor: twice what the export recorded."""
    allowed = {"fp32": TOLERANCE, "bf16": TOLERANCE_BF16}.get(engine.precision)
    if allowed is None:
        allowed = TOLERANCE + 2 * bundle.manifest.exports[file].error
    found = parity(engine, encoder, bundle)
    if not found <= allowed:
        raise BadStore(
            f"{file}: logits {found:.3g} from the recorded ones, above {allowed:.3g}; export again"
        )


def _why_no_torch(wishes: Wishes) -> str:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            return f"{package} is not installed; install it, or export the bundle and take --engine onnx"
    if wishes.precision == "int8":
        return "torch runs fp32, and bf16 on a GPU; take --engine onnx"
    if wishes.precision == "bf16" and not on_gpu(wishes):
        return "torch runs bf16 on a GPU only; take --engine openvino"
    return ""


def _why_no_onnx(bundle: Bundle, wishes: Wishes) -> str:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed; install it, or take --engine torch"
    if wishes.device == "cuda":
        return "it computes on the CPU; set --device cpu, or take --engine torch"
    if wishes.precision == "bf16":
        return "it runs fp32 and int8; take --engine openvino"
    if reason := _why_no_file(bundle, "onnx", wishes):
        return reason
    return _why_no_import("onnxruntime", "torch")


def _why_no_openvino(bundle: Bundle, wishes: Wishes) -> str:
    if find_spec("openvino") is None:
        return "openvino is not installed; install it, or take --engine onnx"
    if wishes.device == "cuda":
        return "it computes on the CPU; set --device cpu, or take --engine torch"
    if reason := _why_no_file(bundle, "openvino", wishes) or _why_no_comparison(bundle, wishes):
        return reason
    if reason := _why_no_import("openvino", "onnx"):
        return reason
    if wishes.precision == "bf16" and not openvino_runtime.runs_bf16():
        return "this processor has no bfloat16; set --precision fp32 or int8"
    return ""


def _why_no_import(name: str, other: str) -> str:
    """Why an installed package cannot be imported, and what to do; empty when it can. Asked last, for an
    import takes time and memory."""
    try:
        import_module(name)
    except (ImportError, OSError, RuntimeError) as error:  # as a missing library of the system makes it
        cure = f"install it again, or take --engine {other}"
        return f"{name} is installed and cannot be imported ({error}); {cure}"
    return ""


def _why_no_comparison(bundle: Bundle, wishes: Wishes) -> str:
    """Under "auto": why it need not be compiled at all. A file in int8 that is not its own it computes in
    floating point, later than ONNX Runtime does."""
    if wishes.engine != "auto" or wishes.precision != "int8" or _why_no_onnx(bundle, wishes):
        return ""
    if _export_name(bundle, "openvino", "int8") != _export_name(bundle, "onnx", "int8"):
        return ""
    return "onnx runs the same file faster"


def _why_no_file(bundle: Bundle, engine: str, wishes: Wishes) -> str:
    if _export_name(bundle, engine, wishes.precision):
        return ""
    if any(entry.precision == wishes.precision for entry in bundle.manifest.exports.values()):
        return (
            f"none of the bundle's files in {wishes.precision} is for it on this processor; set --engine auto"
            f" or --precision fp32, or export {bundle.path} again (--max-loss larger, if one was refused)"
        )
    quantize = " --quantize int8" if wishes.precision == "int8" else ""
    return (
        f"the bundle holds no ONNX file in {wishes.precision}; write one with "
        f"`stratified-train export {bundle.path} --format onnx{quantize}`"
    )


def _export_name(bundle: Bundle, engine: str, precision: str) -> str:
    """The bundle's file that this engine runs in this precision; empty when there is none.

    bf16 is no file of its own: the fp32 one is computed so.
    """
    kept = "fp32" if precision == "bf16" else precision
    exports = bundle.manifest.exports.items()
    found = {e.format: name for name, e in exports if e.precision == kept}
    return next((found[wanted] for wanted in _formats(engine, precision) if wanted in found), "")


def _formats(engine: str, precision: str) -> tuple[str, ...]:
    """The formats of exports that the engine runs here, best first.

    Its own int8 file gives OpenVINO wrong sums on some processors; the other one it computes exactly.
    """
    if engine == "openvino" and precision == "int8":
        return FORMATS[engine] if openvino_runtime.adds_int8_exactly() else FORMATS["onnx"]
    return FORMATS[engine]


def on_gpu(wishes: Wishes) -> bool:
    """Whether torch would compute on a GPU."""
    if wishes.device == "cpu" or find_spec("torch") is None:
        return False
    if wishes.device == "auto" and not any(any(Path("/dev").glob(name)) for name in GPUS):
        return False  # known without importing torch, which takes seconds
    import torch

    return torch.cuda.is_available()


def _torch(bundle: Bundle, encoder: Encoder, wishes: Wishes, announce: Announce) -> Engine:
    import torch

    from serving.engines.torch import TorchEngine, choose_device, own_memory
    from stratified_models import load_tokenizer

    announce("loading the weights into torch")
    torch.set_num_threads(wishes.threads)
    model = own_memory(load_model(bundle))
    announce("checking parity")
    check_parity(bundle, model, load_tokenizer(bundle.path, max_length=bundle.manifest.max_length))
    try:
        engine = TorchEngine(model, device=choose_device(wishes.device), precision=wishes.precision)
    except RuntimeError as error:
        raise BadStore(
            f"device {wishes.device!r} cannot be used ({error}); set --device cpu or auto"
        ) from None
    if wishes.precision != "fp32":
        _check(engine, "model.safetensors", encoder, bundle)
    return engine


def _onnx(bundle: Bundle, wishes: Wishes, announce: Announce) -> Engine:
    from serving.engines.onnx import OnnxEngine

    name = _export_name(bundle, "onnx", wishes.precision)
    announce(f"loading {name}")
    return OnnxEngine(
        bundle.path / name, precision=wishes.precision, pad=pad_id(bundle), threads=wishes.threads
    )


def _openvino(bundle: Bundle, encoder: Encoder, wishes: Wishes, announce: Announce) -> Engine:
    from serving.engines.openvino import OpenvinoEngine

    name = _export_name(bundle, "openvino", wishes.precision)
    announce(f"compiling {name} for openvino")
    engine = OpenvinoEngine(
        bundle.path / name,
        precision=wishes.precision,
        pad=pad_id(bundle),
        threads=wishes.threads,
        workers=wishes.workers,
        longest=bundle.manifest.max_length,
        bounds=wishes.bounds,
    )
    announce(f"graphs of fixed lengths: {engine.buckets}")
    return engine
