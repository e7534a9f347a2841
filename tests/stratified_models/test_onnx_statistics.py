"""Columns of activations: largest values and second moments, of what is no padding, in one run or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stratified_models import onnx_statistics
from stratified_models.onnx_statistics import Feed, largest_values, second_moments

TABLE = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """ids (B, T) → x (B, T, 6), a table's rows; y (B, 6), the first token's."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Gather", ["x", "zero"], ["y"], axis=1),
        helper.make_node("Identity", ["attention_mask"], ["seen"]),
    ]
    shape = ["batch", "tokens"]
    integers, floats = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info(name, integers, shape) for name in ("input_ids", "attention_mask")],
        [
            helper.make_tensor_value_info("y", floats, ["batch", 6]),
            helper.make_tensor_value_info("seen", integers, shape),
        ],
        [
            numpy_helper.from_array(TABLE, "table"),
            numpy_helper.from_array(np.array(0, np.int64), "zero"),
        ],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


FEEDS: list[Feed] = [
    {"input_ids": np.array([[3, 4, 0], [5, 0, 0]]), "attention_mask": np.array([[1, 1, 0], [1, 0, 0]])},
    {"input_ids": np.array([[7, 3]]), "attention_mask": np.array([[1, 1]])},
]
TOKENS, FIRST = TABLE[[3, 4, 5, 7, 3]], TABLE[[3, 5, 7]]


def test_largest_values_are_of_tokens_and_not_of_padding(graph: Path) -> None:
    found = largest_values(graph, ["x", "y"], FEEDS)
    np.testing.assert_array_equal(found["x"], np.abs(TOKENS).max(axis=0))
    np.testing.assert_array_equal(found["y"], np.abs(FIRST).max(axis=0))


@pytest.mark.parametrize("most", [1 << 20, 1])
def test_moments_are_the_same_in_one_run_and_in_several(
    graph: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_statistics, "MOST_BYTES", most)
    found = dict(second_moments(graph, {"x": 6, "y": 6}, FEEDS))
    np.testing.assert_allclose(found["x"], TOKENS.T @ TOKENS, rtol=1e-5)
    np.testing.assert_allclose(found["y"], FIRST.T @ FIRST, rtol=1e-5)
