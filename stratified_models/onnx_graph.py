"""Changes to an exported graph: what is forgotten, what is folded, and which nodes int8 leaves alone.

It knows onnx, and no torch, no bundle and no data.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "array_of",
    "double_tensors",
    "drop_unread",
    "exact_nodes",
    "fold_selections",
    "forget_origins",
    "is_turned",
    "quiet",
    "weighted_sums",
]

SMALL = 16
FEW_ROWS = 4096  # a table of positions has fewer: it is small, and its few large columns coarsen all others
DOUBLE = 11  # onnx.TensorProto.DOUBLE, without importing onnx for it
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes which module a node comes from
KEPT_FP32 = (
    "model.gate",
    "model.domain_head",
    "model.domain_words",
    "model.domain_probes",
    "model.pooler",
    "model.classifier",
)


def forget_origins(graph_model: Any) -> None:
    """Drop what the exporter notes of source files and lines: it is large, and names local folders."""
    for node in graph_model.graph.all_nodes():
        for key in [key for key in node.metadata_props if key != SCOPES]:
            del node.metadata_props[key]
    graph_model.metadata_props.clear()
    graph_model.graph.metadata_props.clear()


def fold_selections(path: Path) -> None:
    """Replace what a graph picks out of a constant by a constant: each expert's matrices out of their stack,
    which then are products with constant matrices like any other.
    """
    import onnx
    from onnx import numpy_helper

    whole = onnx.load(str(path))
    graph = whole.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [
        node for node in graph.node if node.op_type == "Gather" and set(node.input) <= set(constants)
    ]:
        data, index = (array_of(constants[name]) for name in node.input)
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 0)
        picked = np.ascontiguousarray(np.take(data, index, axis=axis))
        graph.initializer.append(numpy_helper.from_array(picked, node.output[0]))
        graph.node.remove(node)
    drop_unread(graph)
    onnx.save(whole, str(path))


def array_of(tensor: Any) -> npt.NDArray[Any]:
    """The values of one of a graph's constants."""
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def is_turned(product: Any) -> bool:
    """Whether a matrix product keeps its weights as (G, F), columns first."""
    return any(entry.name == "transB" and entry.i for entry in product.attribute)


def drop_unread(graph: Any) -> None:
    """Drop the constants that nothing reads any more."""
    read = {name for node in graph.node for name in node.input} | {entry.name for entry in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def exact_nodes(path: Path) -> list[str]:
    """Names of the nodes that int8 leaves as they are: of gate, heads and pooler, what is small, and what is
    computed in double precision.
    """
    import onnx

    whole = onnx.load(str(path), load_external_data=False)
    sides = {tensor.name: tuple(tensor.dims) for tensor in whole.graph.initializer}
    double = double_tensors(whole).keys()
    fp32 = set(_stays_fp32(whole.graph, sides))
    return [
        node.name for node in whole.graph.node if node.name in fp32 or double & {*node.input, *node.output}
    ]


def double_tensors(whole: Any) -> dict[str, int]:
    """What a graph computes or keeps in double precision: the number of axes by name."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(whole).graph
    found = {tensor.name: len(tensor.dims) for tensor in graph.initializer if tensor.data_type == DOUBLE}
    for entry in graph.value_info:
        kind = entry.type.tensor_type
        if kind.elem_type == DOUBLE:
            found[entry.name] = len(kind.shape.dim)
    return found


def weighted_sums(path: Path) -> list[str]:
    """Names of the products of attention's probabilities with the values."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    made = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        before = made.get(node.input[0]) if node.op_type == "MatMul" else None
        if before is not None and before.op_type == "Where":  # rows that may see nothing hold no numbers
            before = made.get(before.input[2])
        if before is not None and before.op_type == "Softmax" and node.input[1] in made:
            found.append(node.name)
    return found


def _stays_fp32(graph: Any, sides: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for node in graph.node:
        scopes = " ".join(entry.value for entry in node.metadata_props if entry.key == SCOPES)
        constant = [sides[name] for name in node.input if name in sides]
        small = any(min(dims, default=0) < SMALL for dims in constant if len(dims) > 1)
        small |= node.op_type == "Gather" and any(dims[0] < FEW_ROWS for dims in constant if len(dims) == 2)
        if small or any(f"{scope}'" in scopes or f"{scope}." in scopes for scope in KEPT_FP32):
            yield node.name


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not needed and on names of axes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
