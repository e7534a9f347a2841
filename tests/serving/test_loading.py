"""Real bundles: loaded, verified, refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from serving.engines.choice import Wishes
from serving.errors import BadStore
from serving.loading import BundleSource, flat_numbers
from serving.source import Loaded
from serving.types import EngineItem, Truncation
from tests.serving.bundles import copied, results


def load(root: Path, name: str, device: str = "cpu", steps: list[str] | None = None) -> Loaded:
    source = BundleSource(root, "", Wishes(engine="torch", device=device), time.monotonic)
    announce = (steps if steps is not None else []).append
    return source.load(source.open().variants[name], announce)


def test_a_bundle_becomes_a_model_that_answers() -> None:
    steps: list[str] = []
    loaded = load(results(), "routing", steps=steps)
    card = loaded.card
    assert (card.version.name, card.version.version, card.strata) == ("routing", "1", 8)
    assert (card.engine, card.precision, card.temperature) == ("torch", "fp32", 1.5)
    assert card.metrics == {"validation.macro_f1": 0.33}
    assert [domain.name for domain in card.domains] == ["imdb", "tweets"]
    assert steps[0] == "verifying the files"
    assert steps[-2:] == ["checking parity", "warming up"]
    assert loaded.batch_tokens >= card.max_tokens
    encoded = loaded.encoder.encode("The plot drags.", Truncation.HEAD)
    [output] = loaded.engine.run([EngineItem(encoded.ids, 0, True)])
    assert (len(output.logits), len(output.strata)) == (3, len(encoded.ids))


def test_a_wrong_sha256_is_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    weights = root / "none" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(BadStore, match=r"model\.safetensors.*sha256"):
        load(root, "none")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    weights = root / "none" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadStore, match=r"model\.safetensors.*1000 bytes"):
        load(root, "none")


def test_logits_that_differ_from_the_recorded_ones_are_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    manifest = root / "none" / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["parity"]["logits"][1][0] += 1
    manifest.write_text(json.dumps(tree))
    with pytest.raises(BadStore, match="recorded logits"):
        load(root, "none")


def test_a_threshold_for_another_score_than_the_models_is_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    manifest = root / "none" / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["out_of_domain"]["score"] = "entropy"
    manifest.write_text(json.dumps(tree))
    with pytest.raises(BadStore, match=r"for the score 'entropy', and the model gives 'energy'; write"):
        load(root, "none")


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BadStore, match=r"device 'cuda' cannot be used .*; set --device cpu or auto"):
        load(results(), "none", device="cuda")


def test_numbers_are_flattened_and_the_rest_left_out() -> None:
    tree = {"test": {"f1": 0.5, "n": 3, "name": "x", "ok": True}, "list": [1], "loss": 1.5, "none": None}
    assert dict(flat_numbers(tree)) == {"test.f1": 0.5, "test.n": 3.0, "loss": 1.5}
