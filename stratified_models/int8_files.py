"""Which int8 files an export writes: ONNX Runtime's always, OpenVINO's where it can be made.

It knows how either is made, and nothing of a bundle, its data or what the files lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stratified_models.errors import ExportError
from stratified_models.onnx_graph import exact_nodes, weighted_sums
from stratified_models.onnx_int8 import quantise
from stratified_models.onnx_model import NAMES
from stratified_models.onnx_outliers import divide_units
from stratified_models.onnx_statistics import Feed
from stratified_models.openvino_int8 import OPENVINO_INT8, not_for_here, quantise_for_openvino, why_not

__all__ = ["int8_files"]


def int8_files(exact: Path, feeds: Sequence[Feed], announce: Callable[[str], None]) -> list[Path]:
    """Write the int8 files beside the fp32 one, `exact`; returns where.

    Args:
        exact: the graph in fp32.
        feeds: inputs of the graph, batches of usual texts.
        announce: told why OpenVINO's file is not written, where it is not: the other one does without it; and
            where this processor is none to run it on.
    """
    divided = exact.with_name("divided.onnx")
    kept = exact_nodes(exact) + divide_units(exact, divided, feeds=feeds)
    files = [exact.with_name(NAMES["int8"])]
    quantise(divided, files[0], exact=kept, feeds=feeds)
    if reason := why_not():
        announce(reason)
        return files
    kept += weighted_sums(divided)  # in eight bits they lose most, and gain time in long texts alone
    try:
        quantise_for_openvino(divided, exact.with_name(OPENVINO_INT8), exact=kept, feeds=feeds)
    except ExportError as error:
        announce(f"{OPENVINO_INT8} is left out: {error}")
        return files
    if note := not_for_here():
        announce(note)
    return [*files, exact.with_name(OPENVINO_INT8)]
