"""What is no graph of a bundle is refused with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from stratified_models import ExportError
from stratified_models.onnx_model import OnnxModel


def test_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(ExportError, match=r"model\.onnx cannot be run by onnxruntime .*; export it again"):
        OnnxModel(path, pad=0, threads=1)


def test_another_graph(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    path = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    with pytest.raises(ExportError, match=r"takes \('x',\) and gives \('y',\)"):
        OnnxModel(path, pad=0, threads=1)
