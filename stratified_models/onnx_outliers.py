"""Takes the few hidden units with the largest values out of a graph's feed-forward products, exactly.

A trained encoder has hidden units whose values are many times those of all others (Dettmers et al. 2022,
arXiv:2208.07339). One scale for a whole tensor must reach up to them, and rounds everything else coarsely. So
the units are divided into two groups: `few` with the largest values, which then can stay in fp32, and the
bulk. GELU(X W₁ + b₁) W₂ is the sum of what either group gives, so nothing is approximated here.

X (…, F) goes in, W₁ (F, H), b₁ (H,), W₂ (H, G); H hidden units. It knows onnx, and no torch and no bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stratified_models.onnx_graph import array_of, drop_unread, is_turned
from stratified_models.onnx_statistics import Feed, Floats, largest_values

__all__ = ["FEW", "divide_units"]

FEW = 16  # a vector of most processors; in practice one or two units stand out

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Block:
    """One feed-forward block's nodes. `bias` is an Add, or `first` itself where it is a Gemm."""

    first: Any
    bias: Any
    gelu: Any
    second: Any


def divide_units(source: Path, target: Path, *, feeds: Sequence[Feed], few: int = FEW) -> list[str]:
    """Write `source` to `target` with divided units; returns the names of the nodes that compute the few.

    Args:
        feeds: inputs of the graph, batches of usual texts: whose largest values decide.
        few: units of each block. Blocks of fewer than twice as many stay whole.
    """
    import onnx

    whole = onnx.load(str(source))
    constants = {tensor.name: array_of(tensor) for tensor in whole.graph.initializer}
    blocks = [block for block in _blocks(whole.graph, constants) if _bias(block, constants).size >= 2 * few]
    outputs = [block.gelu.output[0] for block in blocks]
    largest = largest_values(source, outputs, feeds) if blocks else {}
    added: list[str] = []
    for block in blocks:
        order = np.argsort(-largest[block.gelu.output[0]], kind="stable")
        added += _divide(whole.graph, block, constants, few=np.sort(order[:few]), bulk=np.sort(order[few:]))
    drop_unread(whole.graph)
    del whole.graph.value_info[:]  # they tell shapes of before
    onnx.save(whole, str(target))
    return added


def _blocks(graph: Any, constants: dict[str, Floats]) -> Iterator[_Block]:
    """Every GELU between two products with constant matrices, the first one with a bias."""
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for gelu in graph.node:
        if gelu.op_type != "Gelu" or len(readers.get(gelu.output[0], [])) != 1:
            continue
        bias, [second] = made.get(gelu.input[0]), readers[gelu.output[0]]
        first = _product_before(bias, made)
        if (
            _is_product(first, constants)
            and _is_product(second, constants)
            and len(readers[gelu.input[0]]) == 1
            and len(first.input) + (bias is not first) == 3  # a bias of one kind, and not of both
        ):
            yield _Block(first, bias, gelu, second)


def _product_before(bias: Any, made: dict[str, Any]) -> Any:
    """What an Add adds the bias to; anything else is taken for a product that has its own."""
    if bias is not None and bias.op_type == "Add":
        return next((made[name] for name in bias.input if name in made), None)
    return bias


def _is_product(node: Any, constants: dict[str, Floats]) -> bool:
    return node is not None and node.op_type in ("MatMul", "Gemm") and node.input[1] in constants


def _bias(block: _Block, constants: dict[str, Floats]) -> Floats:
    return constants[_bias_name(block, constants)]


def _bias_name(block: _Block, constants: dict[str, Floats]) -> str:
    if block.bias is block.first:
        return str(block.first.input[2])
    return next(str(name) for name in block.bias.input if name in constants)


def _divide(
    graph: Any, block: _Block, constants: dict[str, Floats], *, few: Places, bulk: Places
) -> list[str]:
    """Narrow the block's nodes to `bulk`, and add nodes that compute `few` and sum; returns their names."""
    from onnx import helper, numpy_helper

    prefix = f"{block.gelu.name}.few"
    inward, outward = _matrix(block.first, constants), _matrix(block.second, constants)
    bias = _bias(block, constants)

    def constant(name: str, values: Floats) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(kind: str, inputs: list[str], output: str, name: str) -> Any:
        return helper.make_node(kind, inputs, [output], name=f"{prefix}.{name}")

    result = block.second.output[0]
    small = [
        node(
            "MatMul", [block.first.input[0], constant(f"{prefix}.in", inward[:, few])], f"{prefix}.x", "first"
        ),
        node("Add", [f"{prefix}.x", constant(f"{prefix}.bias", bias[few])], f"{prefix}.y", "add"),
        node("Gelu", [f"{prefix}.y"], f"{prefix}.z", "gelu"),
        node("MatMul", [f"{prefix}.z", constant(f"{prefix}.out", outward[few])], f"{prefix}.part", "second"),
        node("Add", [f"{prefix}.bulk", f"{prefix}.part"], result, "sum"),
    ]
    small[2].attribute.extend(block.gelu.attribute)
    old, new = _bias_name(block, constants), constant(f"{prefix}.bulk.bias", bias[bulk])
    block.bias.input[list(block.bias.input).index(old)] = new
    for product, matrix in ((block.first, inward[:, bulk]), (block.second, outward[bulk])):
        turned = matrix.T if is_turned(product) else matrix
        product.input[1] = constant(f"{product.name}.bulk", turned)
    block.second.output[0] = f"{prefix}.bulk"
    *parts, total = small
    for added in parts:
        graph.node.insert(list(graph.node).index(block.second), added)
    graph.node.insert(list(graph.node).index(block.second) + 1, total)
    return [added.name for added in small]


def _matrix(product: Any, constants: dict[str, Floats]) -> Floats:
    """The product's weights as X is multiplied by them, (F, G)."""
    weight = constants[product.input[1]]
    return weight.T if is_turned(product) else weight
