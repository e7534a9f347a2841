"""What the folder of models holds, and what is said when it holds nothing usable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serving.errors import BadStore
from serving.store import open_store, survey
from tests.serving.bundles import copied, results


def test_a_results_folder_has_a_variant_a_folder_and_a_selected_one() -> None:
    store = open_store(results())
    assert (sorted(store.variants), store.default) == (["none", "routing"], "routing")
    found = store.variants["none"]
    assert (found.version, found.error, len(found.sha256)) == ("1", "", 64)


def test_the_default_can_be_chosen() -> None:
    assert open_store(results(), model="none").default == "none"


def test_one_bundle_is_its_own_default() -> None:
    store = open_store(results() / "none")
    assert (list(store.variants), store.default) == (["none"], "none")


def test_one_variant_needs_no_selection(tmp_path: Path) -> None:
    shutil.copytree(results() / "none", tmp_path / "none")
    assert open_store(tmp_path).default == "none"


def test_a_bundle_with_a_missing_file_is_listed_with_the_reason(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "none" / "model.safetensors").unlink()
    found = survey(root)["none"]
    assert "model.safetensors" in found.error
    assert found.sha256 == ""


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"selected": null}', '{"selected": {}}'])
def test_a_results_file_that_selects_nothing_is_refused(tmp_path: Path, text: str) -> None:
    root = copied(tmp_path)
    (root / "results.json").write_text(text)
    with pytest.raises(BadStore, match=r"names no selected variant .*; set --model to one of: none, routing"):
        open_store(root)
    assert open_store(root, model="none").default == "none"


def test_no_results_file_is_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "results.json").unlink()
    with pytest.raises(BadStore, match="is missing, so no variant is selected; set --model"):
        open_store(root)


def test_a_selected_variant_without_bundle_is_refused(tmp_path: Path) -> None:
    root = copied(tmp_path)
    shutil.rmtree(root / "routing")
    (root / "none").rename(root / "other")
    shutil.copytree(root / "other", root / "moe")
    (root / "moe" / "README.md").unlink()
    with pytest.raises(
        BadStore, match=r"model 'routing' has no bundle in .*; choose with --model among: moe, none"
    ):
        open_store(root)


def test_an_empty_folder_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match=r"holds no bundle .*; run a sweep, or correct the path"):
        open_store(tmp_path)
    with pytest.raises(BadStore, match="is not a folder; give"):
        open_store(tmp_path / "nowhere")
