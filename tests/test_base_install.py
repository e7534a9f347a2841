"""The programs start with the base requirements alone: what an extra brings is imported when it is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
HIDDEN = """
import sys
from importlib import import_module
names = set({names!r})
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = ["program", "--help"]
module, function = {target!r}.split(":")
getattr(import_module(module), function)()
"""


def names_of(requirements: list[str]) -> set[str]:
    """Distributions, spelt alike."""
    found = (re.match(r"[A-Za-z0-9._-]+", text) for text in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def modules_of_extras() -> set[str]:
    """What is imported from distributions that an extra names and the base does not."""
    extras = set.union(*(names_of(texts) for texts in PROJECT["optional-dependencies"].values()))
    only = extras - names_of([*PROJECT["dependencies"], PROJECT["name"]])
    return {
        module
        for module, distributions in packages_distributions().items()
        if distributions and names_of(distributions) <= only
    }


@pytest.mark.parametrize("program", ["stratified-train", "stratified-serve", "stratified-classify"])
def test_a_program_starts_without_any_extra(program: str) -> None:
    hidden = modules_of_extras()
    assert {"psutil", "accelerate", "pyarrow", "gradio"} <= hidden
    code = HIDDEN.format(names=sorted(hidden), target=PROJECT["scripts"][program])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert "usage" in done.stdout.lower()
