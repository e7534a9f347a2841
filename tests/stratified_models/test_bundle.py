"""A bundle is read as it was written; anything less is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from stratified_models import (
    BundleCorrupt,
    BundleIncompatible,
    BundleIncomplete,
    BundleMissing,
    durable,
    load_tokenizer,
)
from stratified_models.bundle import (
    FILES,
    MANIFEST,
    Bundle,
    check_parity,
    copy_bundle,
    load_model,
    read_bundle,
    write_bundle,
)
from stratified_models.testing import tiny_bundle
from tests.stratified_models.conftest import VARIANTS, Build


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("original"), variant="moe")


@pytest.fixture
def bundle(original: Bundle, tmp_path: Path) -> Bundle:
    return copy_bundle(original.path, tmp_path / "bundle")


def rewrite(bundle: Bundle, change: Callable[[dict[str, object]], object]) -> None:
    path = bundle.path / MANIFEST
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_read_as_written(variant: str, tmp_path: Path) -> None:
    written = tiny_bundle(tmp_path, variant=variant)
    found = read_bundle(tmp_path)
    assert found == written
    assert found.sha256 == hashlib.sha256((tmp_path / MANIFEST).read_bytes()).hexdigest()
    assert set(found.manifest.files) == set(FILES)
    model = load_model(found)
    assert not model.training
    assert model.gate is None or model.gate.folded
    assert check_parity(found, model, load_tokenizer(tmp_path, max_length=64)) == 0
    assert any(any(row) for row in found.manifest.parity.logits)


def test_nothing_is_left_aside(bundle: Bundle) -> None:
    assert {path.name for path in bundle.path.iterdir()} == {*FILES, MANIFEST}


def test_other_files_in_the_directory_stay(original: Bundle, tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "status.json").write_text("{}")
    assert copy_bundle(original.path, tmp_path).sha256 == original.sha256
    assert (tmp_path / "seed-0" / "status.json").read_text() == "{}"


def test_writing_over_a_bundle_replaces_it(bundle: Bundle, build: Build) -> None:
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    manifest = replace(bundle.manifest, version="2", variant="none")
    model = build("none").train()
    again = write_bundle(bundle.path, model=model, tokenizer=tokenizer, manifest=manifest, card="# new")
    assert again.manifest.version == "2"
    assert model.training
    assert read_bundle(bundle.path).sha256 == again.sha256 != bundle.sha256


def test_a_write_that_fails_leaves_no_manifest_over_mixed_files(
    bundle: Bundle, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    real = durable.sync

    def fail(path: Path) -> None:
        if path.name == "tokenizer.json":
            raise OSError("no space left on device")
        real(path)

    monkeypatch.setattr(durable, "sync", fail)  # the disk is what fails, and there is no fake of it
    with pytest.raises(OSError, match="no space"):
        write_bundle(bundle.path, model=build("none"), tokenizer=tokenizer, manifest=bundle.manifest, card="")
    with pytest.raises(BundleMissing):
        read_bundle(bundle.path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="no manifest"):
        read_bundle(tmp_path)
    with pytest.raises(BundleMissing, match="is no directory"):
        read_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_incomplete(name: str, bundle: Bundle) -> None:
    (bundle.path / name).unlink()
    with pytest.raises(BundleIncomplete, match=name):
        read_bundle(bundle.path, verify=False)


def test_incomplete_when_the_manifest_forgets_a_file(bundle: Bundle) -> None:
    rewrite(bundle, lambda raw: raw["files"].pop("model.safetensors"))  # type: ignore[attr-defined]  # plain JSON
    with pytest.raises(BundleIncomplete, match=r"model\.safetensors"):
        read_bundle(bundle.path)


def test_truncated(bundle: Bundle) -> None:
    path = bundle.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleCorrupt, match="bytes") as caught:
        read_bundle(bundle.path)
    assert caught.value.file == "model.safetensors"
    assert caught.value.expected != caught.value.found
    assert read_bundle(bundle.path, verify=False).path == bundle.path


def test_one_byte_changed(bundle: Bundle) -> None:
    path = bundle.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleCorrupt, match="sha256"):
        read_bundle(bundle.path)
    with pytest.raises(BundleCorrupt):
        copy_bundle(bundle.path, bundle.path.parent / "copy")


def test_manifest_is_no_json_or_of_another_schema(bundle: Bundle) -> None:
    rewrite(bundle, lambda raw: raw.update(schema_version=2))
    with pytest.raises(BundleIncompatible, match="schema_version 2"):
        read_bundle(bundle.path)
    (bundle.path / MANIFEST).write_text("{")
    with pytest.raises(BundleCorrupt, match="JSON"):
        read_bundle(bundle.path)
    (bundle.path / MANIFEST).write_text("[]")
    with pytest.raises(BundleIncompatible):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", ".."])
def test_names_cannot_lead_out_of_the_bundle(name: str, bundle: Bundle) -> None:
    rewrite(bundle, lambda raw: raw["files"].update({name: {"sha256": "", "bytes": 0}}))  # type: ignore[attr-defined]  # plain JSON
    with pytest.raises(BundleCorrupt, match="leads out"):
        read_bundle(bundle.path)


def test_parity_notices_other_weights(bundle: Bundle) -> None:
    model, tokenizer = load_model(bundle), load_tokenizer(bundle.path, max_length=64)
    with torch.no_grad():
        model.classifier.bias.add_(0.01)
    with pytest.raises(BundleCorrupt, match="away"):
        check_parity(bundle, model, tokenizer)
    assert check_parity(bundle, model, tokenizer, tolerance=0.1) > 0.005


def test_weights_that_do_not_fit_the_configuration(bundle: Bundle) -> None:
    other = tiny_bundle(bundle.path.parent / "other", variant="none")
    shutil.copy(other.path / "model.safetensors", bundle.path / "model.safetensors")
    with pytest.raises(BundleCorrupt, match=r"parameters of config\.json"):
        load_model(bundle)


@pytest.mark.parametrize("variant", ["attention", "moe"])
def test_weights_of_the_time_when_beta_was_a_scalar(variant: str, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, variant=variant)
    path = bundle.path / "model.safetensors"
    weights = load_file(path)
    weights["gate.log_beta"] = weights["gate.log_beta"].reshape(())
    save_file(weights, path, metadata={"format": "pt"})
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    assert check_parity(bundle, load_model(bundle), tokenizer) == 0
    auto = AutoModelForSequenceClassification.from_pretrained(bundle.path).prepare_for_inference()
    assert auto.gate.log_beta.shape == (1,)
    assert check_parity(bundle, auto, tokenizer) == 0
    auto.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors")["gate.log_beta"].shape == (1,)


def test_weights_of_the_time_when_distances_had_variances_by_feature(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, variant="none", unknown_rows=20, unknown_score="mahalanobis")
    path = bundle.path / "model.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(0)
    for name in ("unknown.within", "unknown.overall"):
        weights[name] = torch.rand(len(weights[name]), generator=generator) + 0.5
    save_file(weights, path, metadata={"format": "pt"})
    model = load_model(bundle)
    assert model.unknown is not None
    features, tokens = (
        torch.randn(5, len(weights["unknown.within"]), generator=generator),
        torch.full((5,), 9),
    )
    found = model.unknown(features, tokens)["mahalanobis"]
    x, means = features.double(), weights["unknown.means"].double()
    own = ((x[:, None] - means).square() / weights["unknown.within"]).sum(-1).amin(-1)
    background = ((x - weights["unknown.centre"]).square() / weights["unknown.overall"]).sum(-1)
    torch.testing.assert_close(found.double(), (own - background) / x.shape[1], atol=1e-5, rtol=1e-5)


def test_weights_of_the_time_when_lengths_had_a_line_alone(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, variant="none", unknown_rows=20, unknown_score="mahalanobis")
    path = bundle.path / "model.safetensors"
    weights = load_file(path)
    weights["unknown.usual"] = torch.tensor([[0.5, -0.1], [0.2, 0.0]])
    weights["unknown.spread"] = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    save_file(weights, path, metadata={"format": "pt"})
    model = load_model(bundle)
    assert model.unknown is not None
    assert model.unknown.usual.tolist() == [
        pytest.approx([0.5, -0.1, 0, 0]),
        pytest.approx([0.2, 0, 0, 0]),
    ]
    assert model.unknown.spread[:, 2:].abs().sum() == 0


def test_weights_of_another_shape(bundle: Bundle) -> None:
    path = bundle.path / "model.safetensors"
    weights = load_file(path)
    weights["classifier.bias"] = torch.zeros(7)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(BundleCorrupt, match=r"a difference in classifier\.bias"):
        load_model(bundle)
