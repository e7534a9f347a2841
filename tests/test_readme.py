"""The README's annotated tree names every source file, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stratified_models", "trainer_job", "serving", "demo", "k8s/checks", "locks", "benchmarks")


def tree() -> list[tuple[int, list[str]]]:
    """Indent and names of each line of the tree."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is where")[2]
    lines = block.split("```")[1].strip("\n").splitlines()
    return [
        (len(line) - len(line.lstrip()), re.findall(r"[\w.-]+\.(?:py|yaml)\b|[\w]+/", line)) for line in lines
    ]


def named() -> set[str]:
    """Paths of the Python files that the tree names."""
    folders: list[tuple[int, str]] = []
    found: set[str] = set()
    for indent, names in tree():
        folders = [entry for entry in folders if entry[0] < indent]
        base = "".join(folder for _, folder in folders)
        if names and names[0].endswith("/") and len(names) == 1:
            folders.append((indent, names[0]))
            continue
        if names and names[0].endswith("/"):
            base += names[0]
            folders.append((indent, names[0]))
        found |= {base + name for name in names if name.endswith(".py")}
    return found


def written() -> set[str]:
    """Paths of the project's own Python files, without package markers and generated code."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    paths.append(ROOT / "protos" / "generate.py")
    return {path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"}


def test_the_tree_names_every_source_file_and_nothing_else() -> None:
    assert named() == written()
