"""An int8 file for OpenVINO: made by NNCF's post-training quantisation, and run as the service will run it.

OpenVINO computes the products of `onnx_int8` in floating point, for their scales are found while it runs.
NNCF (https://github.com/openvinotoolkit/nncf) gives activations fixed scales, found on calibration rows, and
notes them in the graph as pairs of QuantizeLinear and DequantizeLinear, which OpenVINO fuses into int8
products.
It knows onnx, nncf and openvino, and no torch, no bundle and no label.

What is unusual here:
- SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4) with α = `SMOOTHING`, and ranges by the least
  and the largest value: chosen on validation rows, see docs/models.md.
- NNCF reports its use over the network unless told otherwise; here it is told otherwise.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stratified_models.errors import ExportError
from stratified_models.onnx_graph import double_tensors, drop_unread
from stratified_models.onnx_model import NAMES, Arrays, OnnxModel, feed_of, known_names
from stratified_models.openvino_rounding import round_anew
from stratified_models.openvino_runtime import adds_int8_exactly, core

__all__ = [
    "OPENVINO_INT8",
    "OpenvinoModel",
    "format_of",
    "not_for_here",
    "open_export",
    "quantise_for_openvino",
    "why_not",
]

OPENVINO_INT8 = "model.int8.openvino.onnx"  # file in the bundle
SMOOTHING = 0.8
SILENT = "NNCF_CI"  # a variable that makes NNCF report nothing

Feed = Mapping[str, npt.NDArray[np.int64]]


def why_not() -> str:
    """Why the file cannot be made here, and the cure; empty when it can."""
    if absent := next((name for name in ("nncf", "openvino") if find_spec(name) is None), ""):
        return (
            f"{absent} is not installed, so {OPENVINO_INT8} is not written; "
            "pip install 'stratified-sentiment[quantize]'"
        )
    return ""


def not_for_here() -> str:
    """Why this processor cannot run the file, and what is done instead; empty when it can."""
    if adds_int8_exactly():
        return ""
    return (
        f"this processor has no VNNI, so OpenVINO's sums of eight-bit products overflow: {OPENVINO_INT8} is "
        f"for others, is measured as they compute it by ONNX Runtime, and {NAMES['int8']} is served here"
    )


def quantise_for_openvino(source: Path, target: Path, *, exact: Iterable[str], feeds: Sequence[Feed]) -> None:
    """Write `source`, a graph in fp32, to `target` with its large products and tables in int8.

    Args:
        exact: names of the nodes that stay as they are.
        feeds: inputs of the graph, batches of usual texts: what the scales are found on. A value larger than
            any of theirs is cut off.

    Raises:
        ExportError: NNCF cannot quantise this graph.
    """
    import onnx

    whole = onnx.load(str(source))
    _fold_casts(whole.graph)
    hidden = _hide_double_products(whole)
    with _quiet_nncf() as nncf:
        advanced = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
        )
        try:
            quantised = nncf.quantize(
                whole,
                nncf.Dataset(list(feeds)),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(names=sorted(exact), validate=False),
                advanced_parameters=advanced,
            )
        except (MemoryError, OSError):  # the machine's, and no other version's matter
            raise
        except Exception as error:  # its own classes, and those of the runtimes below it: no common base
            reason = " ".join(str(error).split())
            raise ExportError(
                f"nncf cannot quantise {source.name} ({reason}); install another version of nncf"
            ) from error
    for node in quantised.graph.node:
        if node.name in hidden:
            node.CopyFrom(hidden[node.name])
    round_anew(quantised, source, feeds)
    onnx.save(quantised, str(target))


def _fold_casts(graph: Any) -> None:
    """Replace constants that are cast by constants of the other type: NNCF takes every cast for one of what
    is computed, and fails.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants]:
        kind = next(entry.i for entry in node.attribute if entry.name == "to")
        value = numpy_helper.to_array(constants[node.input[0]])
        other = value.astype(helper.tensor_dtype_to_np_dtype(kind))
        graph.initializer.append(numpy_helper.from_array(other, node.output[0]))
        graph.node.remove(node)
    drop_unread(graph)


def _hide_double_products(whole: Any) -> dict[str, Any]:
    """Write products in double precision as sums by index; returns them as they were, by name.

    NNCF smooths every product with a constant, those among `ignored_scope` too, by a factor in single
    precision: a graph of two types, which no runtime takes.
    """
    from onnx import helper

    double = double_tensors(whole)
    found: dict[str, Any] = {}
    for node in whole.graph.node:
        if node.op_type == "MatMul" and node.input[1] in double:
            found[node.name] = kept = type(node)()
            kept.CopyFrom(node)
            last = "" if double[node.input[1]] == 1 else "j"
            node.op_type = "Einsum"
            node.attribute.append(helper.make_attribute("equation", f"...i,i{last}->...{last}"))
    return found


class OpenvinoModel:
    """One graph compiled by OpenVINO for the CPU; `outputs` are the names that it has.

    Raises:
        ExportError: the file is no graph that OpenVINO compiles.
    """

    def __init__(self, path: Path, *, pad: int, threads: int) -> None:
        """`pad` fills short rows; `threads` 0 takes every core that the machine has."""
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        try:
            self._graph = core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ExportError(f"{path.name} cannot be run by openvino ({reason}); export it again") from error
        self.outputs = known_names(port.names for port in self._graph.outputs)
        self._pad = pad

    def run(
        self,
        rows: Sequence[Sequence[int]],
        domain_ids: Sequence[int],
        *,
        outputs: Sequence[str] | None = None,
    ) -> Arrays:
        """Compute one padded batch; see `OnnxModel.run`."""
        found = self._graph(feed_of(rows, domain_ids, pad=self._pad))
        return {name: np.array(found[name]) for name in (self.outputs if outputs is None else outputs)}


def format_of(path: Path) -> str:
    """What the manifest calls the format of an exported file: the runtime that it is for."""
    return "openvino" if path.name == OPENVINO_INT8 else "onnx"


def open_export(path: Path, *, pad: int, threads: int) -> OnnxModel | OpenvinoModel:
    """An exported file in the runtime that will serve it, so that what is measured is what is served.

    Where OpenVINO's sums would overflow its file is computed as it is written, whole numbers in floating
    point: what it gives on the processors that it is for.
    """
    if format_of(path) != "openvino":
        return OnnxModel(path, pad=pad, threads=threads)
    if adds_int8_exactly():
        return OpenvinoModel(path, pad=pad, threads=threads)
    return OnnxModel(path, pad=pad, threads=threads, as_written=True)


@contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """The package, which neither reports its use, nor logs, nor draws bars of progress."""
    os.environ.setdefault(SILENT, "1")
    import nncf

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield nncf
    finally:
        logging.disable(before)
