"""Weights that make up for one another: nearer products, the same places, and nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stratified_models.openvino_rounding import round_anew

FACTORS = np.array([0.5, 1.0, 2.0] * 8, np.float32)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def saved(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, str(path))
    return made


def exact(path: Path, weight: np.ndarray, kind: str) -> None:
    turned: dict[str, Any] = {"transB": 1} if kind == "Gemm" else {}
    saved(path, [helper.make_node(kind, ["x", "w"], ["y"], name="product", **turned)], {"w": weight})


def as_nncf_does(path: Path, weight: np.ndarray, kind: str) -> onnx.ModelProto:
    """The product with factors on its activations' columns, rounded activations and rounded weights."""
    turned = kind == "Gemm"
    smoothed = weight / (FACTORS if turned else FACTORS[:, None])
    step = np.abs(smoothed).max(axis=int(turned)) / 127
    whole = np.round(smoothed / (step[:, None] if turned else step)).astype(np.int8)
    constants: dict[str, Any] = {
        "factors": FACTORS,
        "scale": np.float32(0.05),
        "zero": np.uint8(128),
        "whole": whole,
        "step": step,
        "none": np.zeros(len(step), np.int8),
    }
    attributes: dict[str, Any] = {"transB": 1} if turned else {}
    nodes = [
        helper.make_node("Mul", ["x", "factors"], ["even"], name="factors"),
        helper.make_node("QuantizeLinear", ["even", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dq"),
        helper.make_node("DequantizeLinear", ["whole", "step", "none"], ["w"], name="dw", axis=1 - turned),
        helper.make_node(kind, ["dq", "w"], ["y"], name="product", **attributes),
    ]
    return saved(path, nodes, constants)


def weights_of(model: onnx.ModelProto, kind: str) -> np.ndarray:
    """What the product multiplies the activations of before by, (F, G)."""
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    whole = kept["whole"].astype(np.float32)
    found = (whole.T if kind == "Gemm" else whole) * kept["step"]
    return np.asarray(found * kept["factors"][:, None])


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_products_of_usual_rows_come_nearer(kind: str, random: np.random.Generator, tmp_path: Path) -> None:
    weight = random.normal(size=(24, 16)).astype(np.float32)
    kept = np.ascontiguousarray(weight.T) if kind == "Gemm" else weight
    alike = random.normal(size=(400, 4)) @ random.normal(size=(4, 24)) + 0.1 * random.normal(size=(400, 24))
    rows: Any = alike.astype(np.float32)
    exact(tmp_path / "a.onnx", kept, kind)
    model = as_nncf_does(tmp_path / "b.onnx", kept, kind)
    before = np.abs(rows @ weights_of(model, kind) - rows @ weight).mean()
    assert round_anew(model, tmp_path / "a.onnx", [{"x": rows}]) == 1
    found = weights_of(model, kind)
    assert np.abs(rows @ found - rows @ weight).mean() < 0.7 * before
    assert np.abs(found - weight).max() < 0.1
    assert {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer} == {
        tensor.name: tuple(tensor.dims) for tensor in onnx.load(str(tmp_path / "b.onnx")).graph.initializer
    }


def test_what_is_not_recognised_stays(random: np.random.Generator, tmp_path: Path) -> None:
    """Other weights in `source`, activations that more was done to, a product that `source` has not."""
    weight = random.normal(size=(24, 16)).astype(np.float32)
    rows: Any = random.normal(size=(50, 24)).astype(np.float32)
    exact(tmp_path / "a.onnx", weight, "MatMul")
    for change in ("weight", "step", "activations", "name"):
        model = as_nncf_does(tmp_path / "b.onnx", 2 * weight if change == "weight" else weight, "MatMul")
        if change == "activations":
            model.graph.node[0].op_type = "Add"
        if change == "name":
            model.graph.node[-1].name = "another"
        if change == "step":
            step = next(tensor for tensor in model.graph.initializer if tensor.name == "step")
            step.CopyFrom(numpy_helper.from_array(np.full(16, 0.01, np.float32), "step"))
        before = model.SerializeToString()
        assert round_anew(model, tmp_path / "a.onnx", [{"x": rows}]) == 0, change
        assert model.SerializeToString() == before
