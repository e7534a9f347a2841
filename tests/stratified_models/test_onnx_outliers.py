"""Dividing hidden units: the same numbers, the largest ones apart, what has no such block left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stratified_models.onnx_outliers import divide_units

F, H, G = 4, 8, 3
LARGE = (2, 5)  # the hidden units whose biases are large


def graph_of(path: Path, *, gemm: bool, bias: bool = True) -> None:
    """ids → float (B, T, F) or, with `gemm`, (B·T, F); one feed-forward block behind it."""
    random = np.random.default_rng(0)
    first, second = random.normal(size=(F, H)), random.normal(size=(H, G))
    offset = random.normal(size=H)
    offset[list(LARGE)] += 30
    constants = {"w1": first.T if gemm else first, "b1": offset, "w2": second.T if gemm else second}
    nodes = [helper.make_node("Cast", ["ids"], ["x"], name="cast", to=onnx.TensorProto.FLOAT)]
    if gemm:
        inputs = ["x", "w1", "b1"] if bias else ["x", "w1"]
        nodes.append(helper.make_node("Gemm", inputs, ["y"], name="in", transB=1))
        nodes.append(helper.make_node("Gelu", ["y"], ["z"], name="gelu"))
        nodes.append(helper.make_node("Gemm", ["z", "w2"], ["out"], name="out", transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["x", "w1"], ["p"], name="in"))
        nodes.append(helper.make_node("Add", ["p", "b1"], ["y"], name="bias"))
        nodes.append(helper.make_node("Gelu", ["y"], ["z"], name="gelu", approximate="tanh"))
        nodes.append(helper.make_node("MatMul", ["z", "w2"], ["out"], name="out"))
    shape: list[str | int | None] = ["rows", F] if gemm else ["batch", "tokens", F]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [*shape[:-1], G])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, str(path))


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], {"ids": ids})[0])


@pytest.mark.parametrize("gemm", [False, True])
def test_the_largest_units_stand_apart_and_nothing_changes(gemm: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    graph_of(source, gemm=gemm)
    ids = (np.arange(24) % 3 - 1).reshape((6, F) if gemm else (2, 3, F))
    names = divide_units(source, target, feeds=[{"ids": ids}], few=len(LARGE))
    np.testing.assert_allclose(run(target, ids), run(source, ids), rtol=1e-5, atol=1e-4)
    graph = onnx.load(str(target)).graph
    onnx.checker.check_model(str(target), full_check=True)
    assert set(names) == {f"gelu.few.{part}" for part in ("first", "add", "gelu", "second", "sum")}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(source)).graph.initializer}
    np.testing.assert_array_equal(values["gelu.few.bias"], before["b1"][list(LARGE)])
    assert values["gelu.few.bulk.bias"].shape == (H - len(LARGE),)
    assert not set(before) & set(values)
    [small] = [node for node in graph.node if node.name == "gelu.few.gelu"]
    [bulk] = [node for node in graph.node if node.name == "gelu"]
    assert list(small.attribute) == list(bulk.attribute)


@pytest.mark.parametrize(("bias", "few"), [(False, 2), (True, 5)])
def test_blocks_without_bias_and_narrow_ones_stay_whole(bias: bool, few: int, tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    graph_of(source, gemm=True, bias=bias)
    ids = np.arange(F).reshape(1, F)
    assert divide_units(source, target, feeds=[{"ids": ids}], few=few) == []
    np.testing.assert_array_equal(run(target, ids), run(source, ids))
