"""OpenVINO's int8 file: what is quantised, what stays exact, how near it is, what is told without NNCF."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stratified_models import ExportError, openvino_int8
from stratified_models.bundle import Bundle
from stratified_models.onnx_graph import exact_nodes
from stratified_models.onnx_model import NAMES, OnnxModel
from stratified_models.openvino_int8 import (
    OPENVINO_INT8,
    SILENT,
    OpenvinoModel,
    format_of,
    not_for_here,
    open_export,
    quantise_for_openvino,
    why_not,
)
from stratified_models.openvino_runtime import adds_int8_exactly
from tests.conftest import pretend_vnni

ROWS = [[2, 5, 9, 3], [2, 17, 3], [2, *range(20, 60), 3]]


def test_it_is_small_near_and_named_in_the_manifest(exported: Bundle) -> None:
    sizes = {name: exported.manifest.files[name].bytes for name in (NAMES["fp32"], OPENVINO_INT8)}
    assert sizes[OPENVINO_INT8] < sizes[NAMES["fp32"]]
    entry = exported.manifest.exports[OPENVINO_INT8]
    assert (entry.format, entry.precision) == ("openvino", "int8")
    assert 0 < entry.error < 0.2
    found = open_export(exported.path / OPENVINO_INT8, pad=0, threads=1)
    exact = OnnxModel(exported.path / NAMES["fp32"], pad=0, threads=1)
    assert found.outputs == exact.outputs
    near, right = found.run(ROWS, [-1, 0, 1]), exact.run(ROWS, [-1, 0, 1])
    assert np.abs(near["logits"] - right["logits"]).max() < 0.2
    np.testing.assert_array_equal(found.run(ROWS, [-1, 0, 1], outputs=["logits"])["logits"], near["logits"])


def test_gate_heads_and_pooler_read_no_rounded_weights(exported: Bundle) -> None:
    graph = onnx.load(str(exported.path / OPENVINO_INT8)).graph
    exact = onnx.load(str(exported.path / NAMES["fp32"])).graph
    made = {name: node for node in graph.node for name in node.output}
    rounded = {
        node.name
        for node in graph.node
        if any(name in made and made[name].op_type == "DequantizeLinear" for name in node.input)
    }
    scopes = {node.name: str(node.metadata_props) for node in exact.node}
    kept = ("model.gate", "model.domain_head", "model.pooler", "model.classifier")
    assert rounded
    assert not [name for name in rounded if any(scope in scopes.get(name, "") for scope in kept)]


def test_the_runtime_goes_by_the_file(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_vnni(monkeypatch)
    for name, kind in (
        (OPENVINO_INT8, OpenvinoModel),
        (NAMES["int8"], OnnxModel),
        (NAMES["fp32"], OnnxModel),
    ):
        assert isinstance(open_export(exported.path / name, pad=0, threads=1), kind)
        assert exported.manifest.exports[name].format == format_of(Path(name))
    pretend_vnni(monkeypatch, answer=False)
    assert isinstance(open_export(exported.path / OPENVINO_INT8, pad=0, threads=1), OnnxModel)


def test_where_sums_overflow_it_is_computed_as_it_is_elsewhere(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = OnnxModel(exported.path / NAMES["fp32"], pad=0, threads=1).run(ROWS, [-1, 0, 1])
    pretend_vnni(monkeypatch, answer=False)
    found = open_export(exported.path / OPENVINO_INT8, pad=0, threads=1).run(ROWS, [-1, 0, 1])
    assert list(found) == list(exact)
    assert 0 < np.abs(found["logits"] - exact["logits"]).max() < 0.2
    assert "no VNNI" in not_for_here()
    pretend_vnni(monkeypatch)
    assert not_for_here() == ""


@pytest.mark.parametrize("gone", ["nncf", "openvino"])
def test_a_missing_package_is_told_with_the_cure(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not() == ""
    monkeypatch.setattr(openvino_int8, "find_spec", lambda name: None if name == gone else object())
    assert why_not() == (
        f"{gone} is not installed, so {OPENVINO_INT8} is not written; "
        "pip install 'stratified-sentiment[quantize]'"
    )


def test_nncf_reports_nothing(exported: Bundle) -> None:
    assert OPENVINO_INT8 in exported.manifest.exports
    assert os.environ[SILENT]


def test_what_cannot_be_run_or_quantised_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / OPENVINO_INT8
    path.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"cannot be run by openvino .*; export it again"):
        OpenvinoModel(path, pad=0, threads=1)
    import nncf

    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("an operator\nunheard of")

    monkeypatch.setattr(nncf, "quantize", fail)
    onnx.save(onnx.ModelProto(), str(path))
    with pytest.raises(ExportError, match=r"nncf cannot quantise .* \(an operator unheard of\); install"):
        quantise_for_openvino(path, path, exact=[], feeds=[{}])


def test_distances_in_double_precision_stay_what_they_were(tmp_path: Path) -> None:
    """Kept rows are cast and turned in the graph, where they are too many for the exporter to fold."""
    random = np.random.default_rng(0)
    table = random.normal(size=(50, 16)).astype(np.float32)
    weight = random.normal(size=(16, 24)).astype(np.float32)
    kept = random.normal(size=(40, 24)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="table"),
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product"),
        helper.make_node("Cast", ["y"], ["y2"], name="double", to=onnx.TensorProto.DOUBLE),
        helper.make_node("Cast", ["kept"], ["kept2"], name="kept", to=onnx.TensorProto.DOUBLE),
        helper.make_node("Transpose", ["kept2"], ["turned"], name="turned", perm=[1, 0]),
        helper.make_node("MatMul", ["y2", "turned"], ["alike"], name="alike"),
        helper.make_node("MatMul", ["alike", "line"], ["sum"], name="sum"),
        helper.make_node("Cast", ["sum"], ["out"], name="single", to=onnx.TensorProto.FLOAT),
    ]
    constants: dict[str, np.ndarray] = {"table": table, "weight": weight, "kept": kept, "line": np.ones(40)}
    graph = helper.make_graph(
        nodes,
        "distances",
        [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(made, str(source))
    ids = np.arange(50)
    quantise_for_openvino(source, target, exact=exact_nodes(source), feeds=[{"input_ids": ids}])
    kinds = {node.name: node.op_type for node in onnx.load(str(target)).graph.node}
    assert {kinds["alike"], kinds["sum"]} == {"MatMul"}
    assert "DequantizeLinear" in kinds.values()
    import openvino

    found = openvino.Core().compile_model(str(target), "CPU")({"input_ids": ids})[0]
    exact = (table.astype(np.float64) @ weight @ kept.T).sum(axis=1)
    allowed = 0.05 if adds_int8_exactly() else 0.15  # the product before them may overflow
    assert np.abs(found - exact).max() < allowed * np.abs(exact).max()
