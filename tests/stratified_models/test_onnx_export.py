"""Exported graphs: the same numbers as torch, at every length, inside a bundle that stays intact."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from stratified_models import ExportError, load_tokenizer, onnx_export, onnx_graph
from stratified_models.attach import attach_export, detach_export
from stratified_models.bundle import Bundle, copy_bundle, load_model, read_bundle
from stratified_models.manifest import Export
from stratified_models.onnx_export import export_onnx
from stratified_models.onnx_model import NAMES, OUTPUTS, STRATA_OUTPUTS, OnnxModel
from stratified_models.openvino_int8 import OPENVINO_INT8
from stratified_models.testing import tiny_bundle
from tests.conftest import QUALITY, moved_bundle, pretend_vnni
from tests.stratified_models.conftest import VARIANTS

INT8 = (NAMES["int8"], OPENVINO_INT8)


def torch_outputs(bundle: Bundle, rows: list[list[int]], domains: list[int]) -> dict[str, np.ndarray]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.inference_mode():
        reply = load_model(bundle)(ids, mask, domain_id=torch.tensor(domains))
    names = OUTPUTS if reply.occupancy is None else (*OUTPUTS, *STRATA_OUTPUTS)
    return {name: reply[name].numpy() for name in names}


def row_of(length: int, seed: int) -> list[int]:
    return [2, *np.random.default_rng(seed).integers(5, 200, length - 2).tolist(), 3]


def agree(bundle: Bundle) -> None:
    """Every output, at lengths and batch sizes of its own choice."""
    runner = OnnxModel(bundle.path / NAMES["fp32"], pad=0, threads=1)
    for lengths, domains in (
        ([2], [-1]),
        ([64], [1]),
        ([5, 30, 2, 11, 63], [-1, 0, 1, -1, 0]),
        ([9] * 8, [-1] * 8),
    ):
        rows = [row_of(length, seed) for seed, length in enumerate(lengths)]
        found, expected = runner.run(rows, domains), torch_outputs(bundle, rows, domains)
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=0)


def test_fp32_agrees_with_torch_at_every_length(exported: Bundle) -> None:
    agree(exported)
    entry = exported.manifest.exports[NAMES["fp32"]]
    assert (entry.format, entry.precision, entry.agreement) == ("onnx", "fp32", 1.0)
    assert entry.error <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"routing"}))
def test_invariant_17_every_variant_agrees(variant: str, tmp_path: Path) -> None:
    bundle = moved_bundle(tmp_path / variant, variant)
    export_onnx(bundle.path)
    agree(read_bundle(bundle.path))


def test_a_given_domain_moves_the_exported_logits(exported: Bundle) -> None:
    runner = OnnxModel(exported.path / NAMES["fp32"], pad=0, threads=1)
    row = row_of(12, 0)
    unknown, first, second = runner.run([row] * 3, [-1, 0, 1])["logits"]
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - unknown).max() > 1e-3


def test_int8_is_smaller_near_and_keeps_gate_and_heads_exact(exported: Bundle) -> None:
    sizes = {name: exported.manifest.files[name].bytes for name in NAMES.values()}
    assert sizes[NAMES["int8"]] < 0.9 * sizes[NAMES["fp32"]]
    entry = exported.manifest.exports[NAMES["int8"]]
    assert 0 < entry.error < 0.2
    assert entry.quality == QUALITY
    graph = onnx.load(str(exported.path / NAMES["int8"])).graph
    kinds = {node.name: node.op_type for node in graph.node}
    assert "MatMulInteger" in kinds.values()
    scopes = {node.name: str(node.metadata_props) for node in graph.node}
    gate = [name for name, text in scopes.items() if "model.gate" in text and "MatMul" in kinds[name]]
    assert gate
    assert all(kinds[name] == "MatMul" for name in gate)
    exact = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    weights = [tuple(t.dims) for t in graph.initializer if t.name in exact and len(t.dims) > 1]
    assert (32, 32) in weights  # the pooler's; the encoder's own matrices are gone
    assert (32, 128) not in weights
    rounded = {tuple(tensor.dims) for tensor in graph.initializer if tensor.name not in exact}
    assert {(32, 128 - 16), (128 - 16, 32)} <= rounded


def test_long_tables_are_rounded_and_those_of_positions_are_not(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported.path / NAMES["fp32"]
    words, positions = (
        "model.backbone.embeddings.word_embeddings",
        "model.backbone.embeddings.position_embeddings",
    )

    def kept(few: int) -> set[str]:
        monkeypatch.setattr(onnx_graph, "FEW_ROWS", few)
        names = set(onnx_graph.exact_nodes(path))
        nodes = [node for node in onnx.load(str(path)).graph.node if node.name in names]
        return {table for table in (words, positions) for node in nodes if f"{table}.weight" in node.input}

    assert kept(4096) == {words, positions}  # a vocabulary of 319 words is short as well
    assert kept(200) == {positions}


def test_what_is_recorded_covers_the_texts_that_a_service_compares(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever texts parity was shown on: else the service could refuse the file that was just written."""
    bundle = copy_bundle(exported.path, tmp_path / "copy")
    monkeypatch.setattr("stratified_models.int8_files.why_not", lambda: "not here")
    export_onnx(bundle.path, quantize="int8", texts=("one other text",))
    bundle = read_bundle(bundle.path)
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    runner = OnnxModel(bundle.path / NAMES["int8"], pad=0, threads=1)
    parity, recorded = bundle.manifest.parity, bundle.manifest.exports[NAMES["int8"]].error
    for text, expected in zip(parity.texts, parity.logits, strict=True):
        row = list(tokenizer(text, truncation=True, max_length=64)["input_ids"])
        found = runner.run([row], [-1])["logits"][0]
        assert np.abs(found - np.array(expected)).max() <= recorded + 1e-5, text


def test_the_manifest_names_hash_and_size_and_the_bundle_verifies(exported: Bundle) -> None:
    for name in NAMES.values():
        data = (exported.path / name).read_bytes()
        entry = exported.manifest.files[name]
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert str(Path.cwd()).encode() not in data
        assert b"site-packages" not in data
    assert read_bundle(exported.path, verify=True) == exported
    assert not [path.name for path in exported.path.iterdir() if path.name.startswith(".")]


def test_copies_carry_exports_and_new_weights_drop_them(exported: Bundle, tmp_path: Path) -> None:
    copy = copy_bundle(exported.path, tmp_path / "copy")
    assert copy.sha256 == exported.sha256
    assert read_bundle(copy.path).manifest.exports == exported.manifest.exports
    plain = copy_bundle(tiny_bundle(tmp_path / "plain", variant="none").path, copy.path)
    assert not plain.manifest.exports
    assert not any((copy.path / name).exists() for name in NAMES.values())


def test_refused_int8_leaves_the_bundle_as_it_was(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copy_bundle(exported.path, tmp_path / "copy")
    graph = exported.path / NAMES["fp32"]  # exporting it once more would say nothing new, and take seconds
    monkeypatch.setattr(onnx_export, "_write_graph", lambda model, path: shutil.copyfile(graph, path))

    def refuse(fp32: Path, int8: Path) -> Mapping[str, Any]:
        raise ExportError(f"{int8.name} is no good")

    with pytest.raises(ExportError, match="no good"):
        export_onnx(bundle.path, quantize="int8", measure=refuse)
    assert read_bundle(bundle.path).sha256 == bundle.sha256


def test_one_refused_int8_file_is_left_out_and_an_earlier_one_of_its_name_removed(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copy_bundle(exported.path, tmp_path / "copy")
    graph = exported.path / NAMES["fp32"]
    monkeypatch.setattr(onnx_export, "_write_graph", lambda model, path: shutil.copyfile(graph, path))

    def quantised(exact: Path, feeds: object, announce: object) -> list[Path]:
        for name in INT8:
            shutil.copyfile(exported.path / name, exact.with_name(name))
        return [exact.with_name(name) for name in INT8]

    def refuse(fp32: Path, int8: Path) -> Mapping[str, Any]:
        if int8.name == OPENVINO_INT8:
            raise ExportError("loses too much")
        return QUALITY

    monkeypatch.setattr(onnx_export, "int8_files", quantised)
    said: list[str] = []
    written = export_onnx(bundle.path, quantize="int8", measure=refuse, announce=said.append)
    assert [item.path.name for item in written] == list(NAMES.values())
    assert said == [f"{OPENVINO_INT8} is left out: loses too much"]
    left = read_bundle(bundle.path, verify=True)
    assert set(left.manifest.exports) == set(NAMES.values())
    assert not (bundle.path / OPENVINO_INT8).exists()


def test_a_graph_that_differs_is_refused(exported: Bundle) -> None:
    rows = [row_of(9, 1), row_of(20, 2)]
    model = load_model(exported)
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    with pytest.raises(ExportError, match=r"model\.onnx is 1 away from the model, above 0.0001"):
        onnx_export._compare(model, exported.path / NAMES["fp32"], rows, 1e-4)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ExportError, match="inf away"):
        onnx_export._compare(model, exported.path / NAMES["fp32"], rows, 1e-4)


def test_a_missing_package_is_named(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="onnx is not installed"):
        export_onnx(exported.path)


def test_attach_and_detach_keep_a_complete_bundle(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    source = tmp_path / "b" / "model.other"
    entry = Export("other", "fp32", 0.0, 1.0, 1)
    for content in (b"one", b"another"):
        aside = tmp_path / "model.other"
        aside.write_bytes(content)
        bundle = attach_export(bundle, aside, entry)
        assert read_bundle(bundle.path) == bundle
        assert source.read_bytes() == content
    bundle = detach_export(bundle, "model.other")
    assert not source.exists()
    assert not read_bundle(bundle.path).manifest.exports
    assert detach_export(bundle, "model.other") is bundle
    forbidden = tmp_path / "config.json"
    forbidden.write_text("{}")
    with pytest.raises(ExportError, match="a name of the bundle"):
        attach_export(bundle, forbidden, entry)


def test_a_manifest_without_exports_is_read_as_having_none(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    raw = json.loads((tmp_path / "manifest.json").read_text())
    del raw["exports"]
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    assert read_bundle(tmp_path).manifest == bundle.manifest


def test_a_file_that_its_runtime_cannot_compile_is_left_out_and_the_other_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")
    bundle = moved_bundle(tmp_path, "none")

    def broken(*_: object, **__: object) -> None:
        raise ExportError("model.int8.openvino.onnx cannot be run by openvino (registers); export it again")

    monkeypatch.setattr("stratified_models.openvino_int8.OpenvinoModel.__init__", broken)
    pretend_vnni(monkeypatch)
    said: list[str] = []
    written = export_onnx(bundle.path, quantize="int8", announce=said.append)
    assert [item.path.name for item in written] == [NAMES["fp32"], NAMES["int8"]]
    assert any("model.int8.openvino.onnx is left out: " in line and "registers" in line for line in said)
    assert not (bundle.path / "model.int8.openvino.onnx").exists()


def test_the_domains_bias_is_no_product_in_the_graph(tmp_path: Path) -> None:
    bundle = moved_bundle(tmp_path, "none")
    # Product, softmax and product look like attention: OpenVINO's int8 code for that ran out of registers.
    model = load_model(bundle)
    shape = (len(model.config.domains), len(model.config.labels))
    graph = onnx.load(export_onnx(bundle.path)[0].path).graph
    small = {t.name for t in graph.initializer if tuple(t.dims)[-2:] == shape}
    assert small
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    assert not [node.name for node in products if small & set(node.input)]
