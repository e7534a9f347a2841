"""Names of backbones: packages, folders, hub ids."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stratified_models import BackboneError, resolve_backbone
from stratified_models.sources import first_line, read_config


def package(root: Path, name: str, *, model: str | None) -> None:
    folder = root / name if model is None else root / name / model
    folder.mkdir(parents=True)
    (root / name / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize("model", [None, "model"])
def test_a_package_is_found_and_not_imported(
    model: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"fake_backbone_{model or 'root'}"
    package(tmp_path, name, model=model)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_backbone(f"package:{name}") == str(tmp_path / name / (model or ""))
    assert name not in sys.modules


@pytest.mark.parametrize(
    "name", ["package:", "package:no_such_package_here", "package:a..b", "package:no.such"]
)
def test_a_package_that_is_not_there(name: str) -> None:
    with pytest.raises(BackboneError, match="install it"):
        resolve_backbone(name)


def test_a_package_without_a_model() -> None:
    with pytest.raises(BackboneError, match=r"no config\.json"):
        resolve_backbone("package:email")


def test_everything_else_passes(tmp_path: Path) -> None:
    assert resolve_backbone("distilbert-base-uncased") == "distilbert-base-uncased"
    assert resolve_backbone(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("path", ["/no/such/folder", "./none", "~/none"])
def test_a_folder_that_is_not_there_is_no_hub_id(path: str) -> None:
    with pytest.raises(BackboneError, match="no such folder"):
        read_config(path, None)


def test_first_line_of_an_error() -> None:
    assert first_line(ValueError("one.\ntwo")) == "one"
    assert first_line(KeyError()) == "KeyError"
