"""Writes the nodes of an int8 graph: products of whole numbers, tables of them, and what rounds activations.

It knows onnx, and neither where the whole numbers come from nor what they lose.

X (…, F) are a product's activations, W (F, G) its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stratified_models.onnx_graph import drop_unread
from stratified_models.onnx_rounding import TINY, nearest
from stratified_models.onnx_statistics import FLOAT, Floats

__all__ = ["Rewriting", "RoundedProduct"]

ACTIVATION_LEVELS, TABLE_LEVELS = 127, 127  # steps on either side of zero
CENTRE = 128  # zero of the activations' uint8
SHARED = {
    "int8.axis": np.array([-1], np.int64),
    "int8.tiny": np.float32(TINY),
    "int8.levels": np.float32(ACTIVATION_LEVELS),
    "int8.step": np.float32(1 / ACTIVATION_LEVELS),
    "int8.one": np.float32(1),
    "int8.zero": np.uint8(CENTRE),
}


class RoundedProduct(NamedTuple):
    """One product's weights. Products of the same activations have `spread` and `few` in common.

    `whole` (F, G) int8 and a `step` for each column (G,) are of W after its rows were multiplied by `spread`
    (F,), by which the activations' columns are divided; rows at the places `few` are zero there, and stand in
    `exact` (len(few), G) as they were.
    """

    whole: npt.NDArray[np.int8]
    step: Floats
    spread: Floats
    few: npt.NDArray[np.int64]
    exact: Floats


class Rewriting:
    """The graph's nodes in their new order; names of what is added begin with the name it belongs to."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.read: set[str] = set()
        for name, value in SHARED.items():
            self._constant(name, value)

    def keep(self, node: Any) -> None:
        """Leave a node as it is."""
        self.nodes.append(node)

    def product(self, node: Any, new: RoundedProduct) -> None:
        """Replace a product: whole numbers in, then the token's and column's step, then what stays fp32."""
        name, result = node.name, node.output[0]
        self._constant(f"{name}.weight", new.whole)
        self._constant(f"{name}.step", new.step)
        rows = self._rounded(node.input[0], new)
        self._node("MatMulInteger", [f"{rows}.int8", f"{name}.weight", "int8.zero"], f"{name}.whole")
        self._node("Cast", [f"{name}.whole"], f"{name}.float", to=FLOAT)
        self._node("Mul", [f"{name}.float", f"{rows}.step"], f"{name}.rows")
        more = list(node.input[2:3])  # a bias
        if len(new.few):
            self._constant(f"{name}.exact", new.exact)
            self._node("MatMul", [f"{rows}.few", f"{name}.exact"], f"{name}.part")
            more.append(f"{name}.part")
        names = [f"{name}.scaled{place}" for place in range(len(more))] + [result]
        self._node("Mul", [f"{name}.rows", f"{name}.step"], names[0])
        for place, part in enumerate(more):
            self._node("Add", [names[place], part], names[place + 1])

    def table(self, node: Any, table: Floats) -> None:
        """Keep a table of embeddings as whole numbers, each row with its own step."""
        name = node.input[0]
        if name not in self.read:
            self.read.add(name)
            whole, step = nearest(table, TABLE_LEVELS, axis=1)
            self._constant(f"{name}.int8", whole)
            self._constant(f"{name}.step", step)
        result = node.output[0]
        for part in ("int8", "step"):
            self._node("Gather", [f"{name}.{part}", node.input[1]], f"{result}.row.{part}")
        self._node("Cast", [f"{result}.row.int8"], f"{result}.row.float", to=FLOAT)
        self._node("Mul", [f"{result}.row.float", f"{result}.row.step"], result)

    def finish(self) -> None:
        """Put the new nodes into the graph, and drop constants that nothing reads any more."""
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unread(self.graph)

    def _rounded(self, name: str, new: RoundedProduct) -> str:
        """Activations as uint8 around `CENTRE`, `.int8`, each token's `.step`, and the `.few` columns that
        stay fp32; made once a name.
        """
        if name in self.read:
            return name
        self.read.add(name)
        inverse = 1 / new.spread
        inverse[new.few] = 0  # they take no part in a token's scale
        self._constant(f"{name}.spread", inverse)
        if len(new.few):
            self._constant(f"{name}.places", new.few)
            self._node("Gather", [name, f"{name}.places"], f"{name}.few", axis=-1)
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

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))

    def _constant(self, name: str, value: Any) -> None:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
