"""Tiny real bundles, written once a test session and copied for tests that damage them."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from stratified_models.testing import tiny_bundle


@cache
def results() -> Path:
    """A results folder with `none` and `routing`, of which `routing` is selected; not to be changed."""
    root = Path(mkdtemp(prefix="stratified-results-"))
    for variant in ("none", "routing"):
        tiny_bundle(root / variant, variant=variant)
    (root / "results.json").write_text(json.dumps({"selected": {"variant": "routing", "path": "routing"}}))
    return root


def copied(target: Path) -> Path:
    """The same, to be changed at will."""
    return Path(shutil.copytree(results(), target / "results"))
