"""Writes a bundle's model as an ONNX graph beside its weights, and proves that it computes the same.

It needs torch, onnx and onnxscript; running the result needs none of them (see `onnx_model`). It knows no
job, no data and no service: who has data hands in `measure`.

What is unusual here:
- The gate is folded: ONNX has no Cholesky, and inference then is two matrix products.
- Batch and length are dynamic; parity is shown at many of both, with and without a given domain.
- int8 is two files: ONNX Runtime's (see `onnx_int8`), and, where NNCF is installed, OpenVINO's (see
  `openvino_int8`). Gate, heads, pooler, every matrix with a side below 16, such as a router, and the hidden
  units with the largest values (see `onnx_outliers`) stay fp32: they cost next to nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stratified_models.attach import attach_export, detach_export
from stratified_models.bundle import PARITY_TEXTS, Bundle, load_model, read_bundle
from stratified_models.errors import ExportError
from stratified_models.int8_files import int8_files
from stratified_models.manifest import Export
from stratified_models.onnx_graph import fold_selections, forget_origins, quiet
from stratified_models.onnx_model import (
    INPUTS,
    NAMES,
    OUTPUTS,
    STRATA_OUTPUTS,
    Arrays,
    feed_of,
)
from stratified_models.openvino_int8 import format_of, open_export

if TYPE_CHECKING:
    from torch import Tensor

    from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["OPSET", "TOLERANCE", "Measure", "OnnxExport", "export_onnx", "field_of"]

OPSET = 20  # opset 23's Attention does not take this mask in onnxruntime 1.32
TOLERANCE = 1e-4
BATCH = 8
LENGTHS = (2, 3, 5, 8, 16, 31, 64, 128, 256, 512)

Measure = Callable[[Path, Path], Mapping[str, Any]]
"""Given the fp32 and an int8 file, what the manifest says of the latter; raises ExportError to refuse it."""


@dataclass(frozen=True)
class OnnxExport:
    """One file that was written.

    Attributes:
        path: where.
        export: what the manifest says of it.
        bytes: its size.
        worst: largest distance of any output from the model's own.
    """

    path: Path
    export: Export
    bytes: int
    worst: float


def export_onnx(
    directory: Path,
    *,
    quantize: Literal["int8"] | None = None,
    texts: Sequence[str] = PARITY_TEXTS,
    calibration: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    measure: Measure | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> list[OnnxExport]:
    """Write `model.onnx`, and with `quantize` the int8 files, into the bundle in `directory`.

    Args:
        directory: a bundle; it stays one throughout, and keeps its old files if anything fails.
        quantize: "int8" adds `model.int8.onnx`, and with NNCF `model.int8.openvino.onnx`.
        texts: what parity is shown on, beside the manifest's own texts and rows of every length up to the
            model's longest.
        calibration: usual texts that int8's scales are found on, beside those of parity.
        tolerance: largest distance of any fp32 output from the model's own.
        measure: measures an int8 file before it enters the bundle. One that it refuses is left out; when it
            refuses all of them, the export fails.
        announce: told why an int8 file is left out.

    Raises:
        ExportError: a package is missing, or the graph does not compute what the model does.
        BundleError: `directory` holds no intact bundle.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    bundle = read_bundle(directory)
    model = load_model(bundle)
    # With those that a service compares when it loads the file: what is recorded has to cover them.
    rows = _rows(bundle, list(dict.fromkeys((*bundle.manifest.parity.texts, *texts))))
    with tempfile.TemporaryDirectory(dir=bundle.path, prefix=".exporting-") as aside:
        exact = Path(aside) / NAMES["fp32"]
        _write_graph(model, exact)
        files = [exact]
        if quantize is not None:
            more = _rows(bundle, calibration) if calibration else []
            feeds = _feeds([*rows, *more], pad=int(model.config.pad_token_id or 0))
            files += int8_files(exact, feeds, announce)
        plain, *quantised = files
        first = _compare(model, plain, rows, tolerance)

        def judge(path: Path) -> OnnxExport:
            found = _compare(model, path, rows, tolerance)
            return found if measure is None else _measured(found, measure, plain)

        accepted = [first, *_accepted(quantised, judge, announce)]
        names = {item.path.name for item in accepted}
        for path in files:
            if path.name not in names:  # what an earlier export left there was refused now
                bundle = detach_export(bundle, path.name)
        for item in accepted:
            bundle = attach_export(bundle, item.path, item.export)
    return [replace(item, path=bundle.path / item.path.name) for item in accepted]


def _measured(item: OnnxExport, measure: Measure, exact: Path) -> OnnxExport:
    """An int8 file with what was measured of it. Raises ExportError where it is refused."""
    return replace(item, export=replace(item.export, quality=dict(measure(exact, item.path))))


def _accepted(
    quantised: Sequence[Path], judge: Callable[[Path], OnnxExport], announce: Callable[[str], None]
) -> list[OnnxExport]:
    """The int8 files as judged, less those that were refused or that their runtime cannot compile.

    Raises all refusals as one when no int8 file is left.
    """
    found, refusals = [], []
    for path in quantised:
        try:
            found.append(judge(path))
        except ExportError as error:
            refusals.append(ExportError(f"{path.name} is left out: {error}"))
    if refusals and not found:
        raise ExportError("; ".join(map(str, refusals)))
    for refusal in refusals:
        announce(str(refusal))
    return found


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise ExportError(f"{absent[0]} is not installed, and exporting needs it; pip install {absent[0]}")


def _rows(bundle: Bundle, texts: Sequence[str]) -> list[list[int]]:
    """Token ids: of every text, and of one long text cut to each of `LENGTHS`."""
    from stratified_models.tokenizer import load_tokenizer

    longest = bundle.manifest.max_length
    tokenizer = load_tokenizer(bundle.path, max_length=longest)
    long = " ".join(PARITY_TEXTS) * (1 + longest // 64)
    cuts = sorted({min(length, longest) for length in LENGTHS})
    found = [tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in texts]
    found += [tokenizer(long, truncation=True, max_length=cut)["input_ids"] for cut in cuts]
    return [list(row) for row in found if row]


def _feeds(rows: Sequence[list[int]], *, pad: int) -> list[dict[str, np.ndarray]]:
    """The graph's inputs for rows in padded batches, domains unknown."""
    ordered = sorted(rows, key=len)
    batches = [ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH)]
    return [feed_of(batch, [-1] * len(batch), pad=pad) for batch in batches]


def _write_graph(model: StratifiedForSequenceClassification, path: Path) -> None:
    import torch

    class Plain(torch.nn.Module):
        """Tensors in, tensors out, by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor, domain_id: Tensor) -> tuple[Tensor, ...]:
            reply = self.model(input_ids=input_ids, attention_mask=attention_mask, domain_id=domain_id)
            return tuple(reply[field_of(name)] for name in names)

    names = OUTPUTS if model.gate is None else (*OUTPUTS, *STRATA_OUTPUTS)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=model.config.max_length)
    ids = torch.full((3, 7), int(model.config.pad_token_id or 0))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            Plain().eval(),
            (ids, torch.ones_like(ids), torch.tensor([-1, 0, -1])),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(names),
            dynamic_shapes=({0: batch, 1: tokens}, {0: batch, 1: tokens}, {0: batch}),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing; install another version of torch")
    forget_origins(program.model)
    program.save(str(path))
    fold_selections(path)


def _compare(
    model: StratifiedForSequenceClassification,
    path: Path,
    rows: Sequence[list[int]],
    tolerance: float,
) -> OnnxExport:
    """Each row alone, then all in padded batches of four, domains unknown and given in turn."""
    precision = "fp32" if path.name == NAMES["fp32"] else "int8"
    runner = open_export(path, pad=int(model.config.pad_token_id or 0), threads=1)
    domains = [place % (len(model.config.domains) + 1) - 1 for place in range(len(rows))]
    batches = [[place] for place in range(len(rows))]
    batches += [list(range(start, min(start + 4, len(rows)))) for start in range(0, len(rows), 4)]
    worst, logits, same = 0.0, 0.0, 0
    for batch in batches:
        part, given = [rows[place] for place in batch], [domains[place] for place in batch]
        found, expected = runner.run(part, given), _reference(model, part, given, runner.outputs)
        worst = max(
            worst,
            *(_distance(found[name], expected[name], relative=name == "energy") for name in runner.outputs),
        )
        logits = max(logits, _distance(found["logits"], expected["logits"]))
        same += int((found["logits"].argmax(-1) == expected["logits"].argmax(-1)).sum())
    if precision == "fp32" and not worst <= tolerance:
        raise ExportError(
            f"{path.name} is {worst:.2g} away from the model, above {tolerance:.2g}; "
            "export with another version of torch or onnxscript, and report it"
        )
    export = Export(format_of(path), precision, logits, same / (2 * len(rows)), len(rows))
    return OnnxExport(path, export, path.stat().st_size, worst)


def _reference(
    model: StratifiedForSequenceClassification,
    rows: Sequence[list[int]],
    domains: list[int],
    names: Sequence[str],
) -> Arrays:
    import torch

    longest, pad = max(map(len, rows)), int(model.config.pad_token_id or 0)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        reply = model(input_ids=ids, attention_mask=mask, domain_id=torch.tensor(domains))
    return {name: reply[field_of(name)].numpy() for name in names}


def field_of(name: str) -> str:
    """The model's output behind a graph's: what readers know as energy is the score that the model chose."""
    return "unknown" if name == "energy" else name


def _distance(found: np.ndarray, expected: np.ndarray, *, relative: bool = False) -> float:
    """Largest absolute difference; infinite where one is not a number. With `relative`, what is above 1 is
    compared relative to its size: for the out-of-domain score, which may be a distance, and has no bound."""
    scale = np.maximum(1, np.abs(expected)) if relative else 1.0
    worst = float((np.abs(found - expected) / scale).max())
    return worst if np.isfinite(worst) else float("inf")
