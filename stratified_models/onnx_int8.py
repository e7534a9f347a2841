"""Rewrites an exported graph so that its large matrix products run in int8, each token at a scale of its own.

It knows onnx and onnxruntime, and no torch, no bundle and no model: which products stay as they are is handed
in. What is unusual here, and why ONNX Runtime's own dynamic quantiser is not used:

- That one gives a whole batch one scale: a single large value coarsens every token, and a text's answer
  depends on who shares its batch. Here each token has its own, so rows stay independent; it also costs less.
- Columns of activations that are much larger than the rest are evened out against the weights beforehand, as
  in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4, α = ½), on texts that are handed in.
- The few columns that stand out from the others are left in fp32 altogether, and added (as in LLM.int8,
  Dettmers et al. 2022, arXiv:2208.07339): a token's scale then reaches up to the others alone.
- Weights take 7 of the 8 bits: AVX2 adds pairs of products in 16 bits, which 8-bit weights overflow. So a
  file answers the same on every processor. What is lost by that is made up for (`onnx_rounding`).

X (…, F) are a product's activations, W (F, G) its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stratified_models.onnx_graph import array_of, is_turned
from stratified_models.onnx_rewriting import Rewriting, RoundedProduct
from stratified_models.onnx_rounding import compensated
from stratified_models.onnx_statistics import FLOAT, Feed, Floats, largest_values, second_moments

__all__ = ["quantise"]

WEIGHT_LEVELS = 63  # steps on either side of zero
FEW = 4  # columns that stay fp32 of activations with one that stands out
STANDS_OUT = 3.0  # times the median column's largest value


class _Product(NamedTuple):
    """One product: its node, and its weights, (F, G)."""

    node: Any
    weight: Floats


def quantise(source: Path, target: Path, *, exact: Iterable[str], feeds: Sequence[Feed]) -> None:
    """Write `source` to `target` with int8 products and embedding tables.

    Args:
        exact: names of the nodes that stay as they are.
        feeds: inputs of the graph, batches of usual texts: on these activations' columns are evened out, and
            what rounding the weights loses is made up for.
    """
    import onnx

    whole = onnx.load(str(source))
    kept = frozenset(exact)
    constants = {tensor.name: tensor for tensor in whole.graph.initializer}
    products = _by_input(whole.graph, constants, kept)
    largest = largest_values(source, tuple(products), feeds)
    widths = {name: len(most) for name, most in largest.items()}
    rounded: dict[str, RoundedProduct] = {}
    for name, moments in second_moments(source, widths, feeds):
        rounded |= _rounded(products[name], largest[name], moments)
    rewriting = Rewriting(whole.graph)
    for node in list(whole.graph.node):
        if node.name in rounded:
            rewriting.product(node, rounded[node.name])
        elif node.name not in kept and _reads_table(node, constants):
            rewriting.table(node, array_of(constants[node.input[0]]))
        else:
            rewriting.keep(node)
    rewriting.finish()
    onnx.save(whole, str(target))


def _rounded(
    group: Sequence[_Product], largest: Floats, moments: npt.NDArray[np.float64]
) -> dict[str, RoundedProduct]:
    """The new weights of all products that share their activations, by the names of their nodes."""
    weights = [product.weight for product in group]
    spread, few = _spread(largest, weights), _standing_out(largest)
    together = np.concatenate(weights, axis=1) * spread[:, None]
    seen = moments / spread[:, None] / spread
    together[few], seen[few], seen[:, few] = 0, 0, 0
    whole, step = compensated(together, seen, WEIGHT_LEVELS)
    ends = np.cumsum([weight.shape[1] for weight in weights])[:-1]
    parts = zip(group, np.split(whole, ends, axis=1), np.split(step[0], ends), strict=True)
    return {
        product.node.name: RoundedProduct(numbers, steps, spread, few, product.weight[few])
        for product, numbers, steps in parts
    }


def _standing_out(largest: Floats) -> npt.NDArray[np.int64]:
    """Places of the columns that stay fp32: none where no column is much larger than the others."""
    alike = len(largest) < 4 * FEW or largest.max() < STANDS_OUT * np.median(largest)
    return np.sort(np.argsort(-largest, kind="stable")[: 0 if alike else FEW])


def _by_input(graph: Any, constants: Mapping[str, Any], exact: frozenset[str]) -> dict[str, list[_Product]]:
    """Products with constant matrices, by the activations that they share."""
    found: dict[str, list[_Product]] = {}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.name in exact or node.input[1] not in constants:
            continue
        if len(constants[node.input[1]].dims) != 2:
            continue
        weight = array_of(constants[node.input[1]])
        found.setdefault(node.input[0], []).append(_Product(node, weight.T if is_turned(node) else weight))
    return found


def _reads_table(node: Any, constants: Mapping[str, Any]) -> bool:
    """Whether the node looks rows up in a constant table of floats."""
    table = constants.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.data_type != FLOAT or len(table.dims) != 2:
        return False
    return not any(entry.name == "axis" and entry.i != 0 for entry in node.attribute)


def _spread(largest: Floats, weights: Sequence[Floats]) -> Floats:
    """What activations' columns are divided and weights' rows multiplied by, (F,): √(max|X| / max|W|)."""
    heaviest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    ratio = np.sqrt(np.maximum(largest, 1e-5) / np.maximum(heaviest, 1e-5))
    return np.asarray(ratio / np.exp(np.log(ratio).mean()), np.float32)
