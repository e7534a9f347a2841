"""Rewrites an exported graph so that its large matrix products run in int8, each token at a scale of its own.

It knows onnx and onnxruntime, and no torch, no bundle and no model: which products stay as they are is handed
in. What is unusual here, and why ONNX Runtime's own dynamic quantiser is not used:

- That one gives a whole batch one scale: a single large value coarsens every token, and a text's answer
  depends on who shares its batch. Here each token has its own, so rows stay independent; it also costs less.
- Columns of activations that are much larger than the rest are evened out against the weights beforehand, as
  in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4, α = ½), on texts that are handed in.
- Weights take 7 of the 8 bits: AVX2 adds pairs of products in 16 bits, which 8-bit weights overflow. So a
  file answers the same on every processor.

X (…, F) are a product's activations, W (F, G) its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Feed", "Floats", "largest_values", "quantise"]

WEIGHT_LEVELS, ACTIVATION_LEVELS, TABLE_LEVELS = 63, 127, 127  # steps on either side of zero
CENTRE = 128  # zero of the activations' uint8
TINY = 1e-9
FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx for it
SHARED = {
    "int8.axis": np.array([-1], np.int64),
    "int8.tiny": np.float32(TINY),
    "int8.levels": np.float32(ACTIVATION_LEVELS),
    "int8.step": np.float32(1 / ACTIVATION_LEVELS),
    "int8.one": np.float32(1),
    "int8.zero": np.uint8(CENTRE),
}

Floats = npt.NDArray[np.float32]
Feed = Mapping[str, npt.NDArray[np.int64]]


class _Product(NamedTuple):
    """One product: its node, and its weights, (F, G)."""

    node: Any
    weight: Floats


def quantise(source: Path, target: Path, *, exact: Iterable[str], feeds: Sequence[Feed]) -> None:
    """Write `source` to `target` with int8 products and embedding tables.

    Args:
        exact: names of the nodes that stay as they are.
        feeds: inputs of the graph, batches of usual texts: what activations' columns are evened out on.
    """
    import onnx

    whole = onnx.load(str(source))
    kept = frozenset(exact)
    constants = {tensor.name: tensor for tensor in whole.graph.initializer}
    products = _by_input(whole.graph, constants, kept)
    largest = largest_values(source, tuple(products), feeds)
    rewriting = _Rewriting(whole.graph)
    weights: dict[str, Floats] = {}
    for name, group in products.items():
        spread = _spread(largest[name], [product.weight for product in group])
        rewriting.even_out(name, spread)
        weights |= {product.node.name: product.weight * spread[:, None] for product in group}
    for node in list(whole.graph.node):
        if node.name in weights:
            rewriting.product(node, weights[node.name])
        elif node.name not in kept and _reads_table(node, constants):
            rewriting.table(node, _array(constants[node.input[0]]))
        else:
            rewriting.keep(node)
    rewriting.finish()
    onnx.save(whole, str(target))


def _by_input(graph: Any, constants: Mapping[str, Any], exact: frozenset[str]) -> dict[str, list[_Product]]:
    """Products with constant matrices, by the activations that they share."""
    found: dict[str, list[_Product]] = {}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.name in exact or node.input[1] not in constants:
            continue
        if len(constants[node.input[1]].dims) != 2:
            continue
        weight = _array(constants[node.input[1]])
        turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
        found.setdefault(node.input[0], []).append(_Product(node, weight.T if turned else weight))
    return found


def _array(tensor: Any) -> Floats:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def _reads_table(node: Any, constants: Mapping[str, Any]) -> bool:
    """Whether the node looks rows up in a constant table of floats."""
    table = constants.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.data_type != FLOAT or len(table.dims) != 2:
        return False
    return not any(entry.name == "axis" and entry.i != 0 for entry in node.attribute)


def largest_values(source: Path, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Floats]:
    """Largest absolute value of each column of the named activations, (F,), over all feeds."""
    import onnx
    import onnxruntime as ort

    whole = onnx.load(str(source))
    whole.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    session: Any = ort.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: dict[str, Floats] = {}
    for feed in feeds:
        for name, value in zip(names, session.run(list(names), dict(feed)), strict=True):
            most = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
            found[name] = np.maximum(found.get(name, most), most)
    return found


def _spread(largest: Floats, weights: Sequence[Floats]) -> Floats:
    """What activations' columns are divided and weights' rows multiplied by, (F,): √(max|X| / max|W|)."""
    heaviest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    ratio = np.sqrt(np.maximum(largest, 1e-5) / np.maximum(heaviest, 1e-5))
    return np.asarray(ratio / np.exp(np.log(ratio).mean()), np.float32)


def _levels(values: Floats, levels: int, *, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """`values` as whole numbers of −levels … levels, and the step of each slice along `axis`."""
    step = np.maximum(np.abs(values).max(axis=axis, keepdims=True), TINY) / levels
    return np.round(values / step).astype(np.int8), step.astype(np.float32)


class _Rewriting:
    """The graph's nodes in their new order; names of what is added begin with the name it belongs to."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.spreads: dict[str, Floats] = {}
        self.read: set[str] = set()
        for name, value in SHARED.items():
            self._constant(name, value)

    def even_out(self, name: str, spread: Floats) -> None:
        """Divide the activations `name` by `spread` before they are rounded."""
        self.spreads[name] = spread

    def keep(self, node: Any) -> None:
        """Leave a node as it is."""
        self.nodes.append(node)

    def product(self, node: Any, weight: Floats) -> None:
        """Replace a product: whole numbers in, then the token's and the column's step."""
        name, result = node.name, node.output[0]
        whole, step = _levels(weight, WEIGHT_LEVELS, axis=0)
        self._constant(f"{name}.weight", whole)
        self._constant(f"{name}.step", step[0])
        rows = self._rounded(node.input[0])
        bias = list(node.input[2:3])
        self._node("MatMulInteger", [f"{rows}.int8", f"{name}.weight", "int8.zero"], f"{name}.whole")
        self._node("Cast", [f"{name}.whole"], f"{name}.float", to=FLOAT)
        self._node("Mul", [f"{name}.float", f"{rows}.step"], f"{name}.rows")
        self._node("Mul", [f"{name}.rows", f"{name}.step"], f"{name}.scaled" if bias else result)
        if bias:
            self._node("Add", [f"{name}.scaled", *bias], result)

    def table(self, node: Any, table: Floats) -> None:
        """Keep a table of embeddings as whole numbers, each row with its own step."""
        name = node.input[0]
        if name not in self.read:
            self.read.add(name)
            whole, step = _levels(table, TABLE_LEVELS, axis=1)
            self._constant(f"{name}.int8", whole)
            self._constant(f"{name}.step", step)
        result = node.output[0]
        for part in ("int8", "step"):
            self._node("Gather", [f"{name}.{part}", node.input[1]], f"{result}.{part}")
        self._node("Cast", [f"{result}.int8"], f"{result}.float", to=FLOAT)
        self._node("Mul", [f"{result}.float", f"{result}.step"], result)

    def finish(self) -> None:
        """Put the new nodes into the graph, and drop constants that nothing reads any more."""
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        used |= {entry.name for entry in self.graph.output}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _rounded(self, name: str) -> str:
        """Activations as uint8 around `CENTRE`, `.int8`, and each token's `.step`; made once a name."""
        if name in self.read:
            return name
        self.read.add(name)
        self._constant(f"{name}.spread", 1 / self.spreads[name])
        self._node("Mul", [name, f"{name}.spread"], f"{name}.even")
        self._node("ReduceMax", [f"{name}.even", "int8.axis"], f"{name}.most", keepdims=1)
        self._node("ReduceMin", [f"{name}.even", "int8.axis"], f"{name}.least", keepdims=1)
        self._node("Neg", [f"{name}.least"], f"{name}.negative")
        self._node("Max", [f"{name}.most", f"{name}.negative", "int8.tiny"], f"{name}.size")
        self._node("Mul", [f"{name}.size", "int8.step"], f"{name}.step")
        self._node("Div", ["int8.levels", f"{name}.size"], f"{name}.inverse")
        self._node("Mul", [f"{name}.even", f"{name}.inverse"], f"{name}.scaled")
        self._node("QuantizeLinear", [f"{name}.scaled", "int8.one", "int8.zero"], f"{name}.int8")
        return name

    def _node(self, kind: str, inputs: Iterator[str] | list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))

    def _constant(self, name: str, value: Any) -> None:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
