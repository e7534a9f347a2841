"""OpenVINO's int8 file: what is quantised, what stays exact, how near it is, what is told without NNCF."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from stratified_models import ExportError, openvino_int8
from stratified_models.bundle import Bundle
from stratified_models.onnx_model import NAMES, OnnxModel
from stratified_models.openvino_int8 import (
    OPENVINO_INT8,
    SILENT,
    OpenvinoModel,
    format_of,
    open_export,
    quantise_for_openvino,
    why_not,
)

ROWS = [[2, 5, 9, 3], [2, 17, 3], [2, *range(20, 60), 3]]


def test_it_is_small_near_and_named_in_the_manifest(exported: Bundle) -> None:
    sizes = {name: exported.manifest.files[name].bytes for name in (NAMES["fp32"], OPENVINO_INT8)}
    assert sizes[OPENVINO_INT8] < sizes[NAMES["fp32"]]
    entry = exported.manifest.exports[OPENVINO_INT8]
    assert (entry.format, entry.precision) == ("openvino", "int8")
    assert 0 < entry.error < 0.2
    found = OpenvinoModel(exported.path / OPENVINO_INT8, pad=0, threads=1)
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


def test_the_runtime_goes_by_the_file(exported: Bundle) -> None:
    for name, kind in (
        (OPENVINO_INT8, OpenvinoModel),
        (NAMES["int8"], OnnxModel),
        (NAMES["fp32"], OnnxModel),
    ):
        assert isinstance(open_export(exported.path / name, pad=0, threads=1), kind)
        assert exported.manifest.exports[name].format == format_of(Path(name))


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
