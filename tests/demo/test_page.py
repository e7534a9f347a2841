"""The layout: everything that a visitor uses is there, named for a screen reader, and wired."""

from __future__ import annotations

from pathlib import Path

from demo.asking import Asker
from demo.handlers import Page
from demo.page import CSS, build


def test_every_control_is_there_and_has_a_label(asker: Asker, tmp_path: Path) -> None:
    page = Page(asker, examples={}, report=None, folder=tmp_path)
    config = build(page).get_config_file()
    parts = {part["props"].get("elem_id"): part["props"] for part in config["components"]}
    for name in ("text", "domain", "models", "file", "text-column", "domain-column", "model"):
        assert parts[name]["label"], name
    for name in ("classify", "start", "stop", "take"):
        assert parts[name].get("value") or parts[name]["label"], name
    assert not any(dependency["api_visibility"] == "public" for dependency in config["dependencies"])


def test_the_style_sheet_fetches_nothing() -> None:
    css = CSS.read_text(encoding="utf-8")
    assert "http" not in css
    assert "url(" not in css
    assert "@import" not in css
