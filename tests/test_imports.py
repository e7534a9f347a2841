"""The import contracts of pyproject.toml notice what they forbid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stratified_models", "trainer_job", "serving", "protos", "demo")
CONTRACTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of the packages, and the contracts."""
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            place = folder / path.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def broken(tree: Path) -> list[str]:
    """Names of the contracts that do not hold in `tree`."""
    done = subprocess.run(
        [str(CONTRACTS), "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.endswith((" KEPT", " BROKEN"))]
    return [line.removesuffix(" BROKEN") for line in lines if line.endswith(" BROKEN")]


@pytest.mark.skipif(not CONTRACTS.is_file(), reason="needs import-linter, of the extra `dev`")
@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("variants/none.py", "backbones.bert", "Variants know no family of encoders"),
        ("backbones/gpt2.py", "variants.none", "Families of encoders know no variant"),
        ("variants/sixth.py", "variants.none", "Variants are siblings that do not know each other"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    module: str, imported: str, contract: str, tree: Path
) -> None:
    path = tree / "stratified_models" / module
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.write_text(f"{text}\nimport stratified_models.{imported}\n", encoding="utf-8")
    try:
        assert broken(tree) == [contract]
    finally:
        path.write_text(text, encoding="utf-8")
