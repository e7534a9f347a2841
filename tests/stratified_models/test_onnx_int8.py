"""One int8 product: near its source, with a column that stands out apart, each row by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stratified_models.onnx_int8 import FEW, quantise

F, G, ROWS = 32, 5, 50
OUTLIER = 9  # column of the activations that is much larger than the others


def graph_of(path: Path, *, outlier: float, gemm: bool) -> None:
    """ids (B,) → rows of a table (B, F) → a product (B, G)."""
    random = np.random.default_rng(0)
    table = random.normal(size=(ROWS, F))
    table[:, OUTLIER] *= outlier
    constants = {
        "table": table,
        "w": random.normal(size=(G, F) if gemm else (F, G)),
        "b": random.normal(size=G),
    }
    product = (
        helper.make_node("Gemm", ["x", "w", "b"], ["out"], name="product", transB=1)
        if gemm
        else helper.make_node("MatMul", ["x", "w"], ["out"], name="product")
    )
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["x"], name="table"), product],
        "product",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", G])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, str(path))


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], {"input_ids": ids})[0])


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("outlier", [1.0, 40.0])
def test_a_product_stays_near_whether_or_not_a_column_stands_out(
    outlier: float, gemm: bool, tmp_path: Path
) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    graph_of(source, outlier=outlier, gemm=gemm)
    ids = np.arange(ROWS)
    quantise(source, target, exact=["table"], feeds=[{"input_ids": ids}])
    exact, found = run(source, ids), run(target, ids)
    apart = np.abs(found - exact).mean()
    assert 0 < apart < 0.05  # of sums of 32 products of normal numbers
    names = {node.name for node in onnx.load(str(target)).graph.node}
    assert ("x.few" in names) == (outlier > 1)


def test_columns_that_stand_out_are_exact(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    graph_of(source, outlier=40.0, gemm=False)
    quantise(source, target, exact=["table"], feeds=[{"input_ids": np.arange(ROWS)}])
    before, after = (
        {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(str(path)).graph.initializer}
        for path in (source, target)
    )
    places = after["x.places"]
    assert len(places) == FEW
    assert OUTLIER in places
    np.testing.assert_array_equal(after["product.exact"], before["w"][places])
    assert not after["product.weight"][places].any()
    assert not after["x.spread"][places].any()


def test_a_row_alone_gives_what_it_gives_in_its_batch(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    graph_of(source, outlier=40.0, gemm=True)
    quantise(source, target, exact=[], feeds=[{"input_ids": np.arange(ROWS)}])
    together = run(target, np.arange(ROWS))
    alone = np.concatenate([run(target, np.array([row])) for row in range(ROWS)])
    np.testing.assert_array_equal(together, alone)
