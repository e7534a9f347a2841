"""The package's face: what it exports, what it registers, and that bundles are read without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

import stratified_models
from stratified_models import StratifiedForSequenceClassification
from stratified_models.testing import tiny_bundle

WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["transformers"] = None
from stratified_models import BundleMissing
from stratified_models.bundle import read_bundle
print(read_bundle(Path(sys.argv[1])).manifest.name)
try:
    read_bundle(Path(sys.argv[1]) / "nowhere")
except BundleMissing:
    print("missing")
"""


def test_every_export_is_there() -> None:
    for name in stratified_models.__all__:
        assert getattr(stratified_models, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        stratified_models.__getattr__("nonsense")


def test_the_auto_class_loads_a_bundle(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, variant="layers")
    model = AutoModelForSequenceClassification.from_pretrained(bundle.path)
    assert isinstance(model, StratifiedForSequenceClassification)


def test_bundles_are_read_without_torch(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    root = Path(stratified_models.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(bundle.path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [bundle.manifest.name, "missing"]
