"""Rounds the weights of a graph that NNCF quantised once more, so that its products keep their values.

NNCF rounds every weight to the nearest step. Here those that come later make up for those before, as in the
other int8 file (`onnx_rounding`). Only constants change: the graph is as large and as fast.
It knows onnx, and no nncf, no torch, no bundle and no label.

X (…, F) are a product's activations in fp32, W (F, G) its weights there. NNCF multiplies the columns of X by
factors (F,), and divides the rows of W by them (SmoothQuant).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stratified_models.onnx_graph import array_of, is_turned
from stratified_models.onnx_rounding import Whole, compensated
from stratified_models.onnx_statistics import Feed, Floats, second_moments

__all__ = ["round_anew"]

LEVELS = 127  # whole numbers on either side of zero
HALF = 0.51  # of a step, as far as rounding to the nearest leaves any weight


class _Product(NamedTuple):
    """W and the factors, and its constants in the quantised graph; `turned`: they are kept as (G, F)."""

    weight: Floats
    factors: Floats
    whole: Any
    step: Any
    turned: bool


def round_anew(quantised: Any, source: Path, feeds: Sequence[Feed]) -> int:
    """Replace the rounded weights of `quantised`, which NNCF made of `source`; returns of how many products.

    Args:
        quantised: the graph; it is changed in place. A product whose weights are not those of `source`,
            divided by factors and rounded, stays as it is.
        source: the same graph in fp32.
        feeds: inputs of the graph, batches of usual texts: on these the products keep their values.
    """
    from onnx import numpy_helper

    groups: dict[str, list[_Product]] = {}
    for activations, product in _products(quantised.graph, source):
        groups.setdefault(activations, []).append(product)
    widths = {name: len(group[0].weight) for name, group in groups.items()}
    for name, moments in second_moments(source, widths, feeds):
        for weight, factors, *kept, turned in groups[name]:
            seen = moments * np.outer(factors, factors)
            whole, step = compensated(weight / factors[:, None], seen, LEVELS)
            for tensor, value in zip(kept, (whole.T if turned else whole, step.reshape(-1)), strict=True):
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    return sum(map(len, groups.values()))


def _products(graph: Any, source: Path) -> Iterator[tuple[str, _Product]]:
    """The products with a constant rounded matrix, and the names of X in `source`."""
    import onnx

    before = onnx.load(str(source)).graph
    originals = {node.name: node for node in before.node}
    exact, constants = ({tensor.name: tensor for tensor in one.initializer} for one in (before, graph))
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        original, weights = originals.get(node.name), made.get((*node.input, "", "")[1])
        if original is None or node.op_type not in ("MatMul", "Gemm") or original.input[1] not in exact:
            continue
        if weights is None or weights.op_type != "DequantizeLinear" or not {*weights.input} <= {*constants}:
            continue
        turned = is_turned(node)
        weight: Floats = array_of(exact[original.input[1]])
        weight = weight.T if turned else weight
        factors = _factors(node.input[0], original.input[0], made, constants)
        whole, step, *_ = (constants[name] for name in weights.input)
        numbers = array_of(whole).T if turned else array_of(whole)
        if factors is None:
            continue
        smoothed: Floats = weight / factors.reshape(-1, 1)
        if _is_rounded(smoothed, numbers, array_of(step)):
            factors = np.broadcast_to(factors, len(weight))
            yield original.input[0], _Product(weight, factors, whole, step, turned)


def _factors(name: str, before: str, made: Mapping[str, Any], constants: Mapping[str, Any]) -> Floats | None:
    """What columns of the activations `before` were multiplied by on their way to `name`, (F,) or (1,); None
    where more was done to them.
    """
    factors = np.ones(1, np.float32)
    while name != before:
        node = made.get(name)
        if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Mul"):
            return None
        *_, name = sorted(node.input, key=lambda entry: entry not in constants)  # what is computed
        if node.op_type == "Mul":
            factor = next((entry for entry in node.input if entry in constants), None)
            if factor is None:
                return None
            factors = factors * array_of(constants[factor]).reshape(-1)
    return factors


def _is_rounded(weight: Floats, whole: Whole, step: Floats) -> bool:
    """Whether `whole` with a `step` for each column is `weight` to the nearest."""
    if whole.dtype != np.int8 or whole.shape != weight.shape or step.shape != weight.shape[1:]:
        return False
    return bool((np.abs(weight / step - whole) <= HALF).all())
