"""What surrounds the code agrees with it: workflow, hooks, citation, devcontainer, decisions, links."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOP = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "examples/README.md",
    "examples/compose.md",
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_workflows_call_the_gate_and_nothing_else() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        steps = [step for job in jobs.values() for step in job["steps"]]
        assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


def test_hooks_are_the_gates_own_tools() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    gate = read("Makefile")
    for hook in repository["hooks"]:
        words = hook["entry"].split()
        assert words[0] == "make" or Path(words[0]).parent == Path(".venv/bin")
        assert (
            hook["id"] not in ("ruff", "ruff-format")
            or " ".join(words[1:3]).removesuffix(" --force-exclude") in gate
        )


def test_make_targets_that_settings_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.M))
    named = {name for file in ("pyproject.toml", "CONTRIBUTING.md") for name in named_targets(file)}
    assert len(named) > 2
    assert named <= targets


def named_targets(file: str) -> list[str]:
    return re.findall(r"`make ([a-z-]+)", read(file))


def test_versions_and_ports_agree() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert json.loads(read(".devcontainer/devcontainer.json"))["forwardPorts"] == [7860, 50051, 9464]


def test_the_job_and_the_models_know_the_same_variants() -> None:
    import stratified_models
    from trainer_job.config import VARIANTS

    assert stratified_models.VARIANTS == VARIANTS, (
        "the job's configuration has a list of its own, without torch"
    )


def test_there_are_ten_decisions_of_one_form() -> None:
    found = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len(found) >= 10
    for number, path in enumerate(found, start=1):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04d}-")
        assert [line for line in text.splitlines() if line.startswith("## ")] == [
            "## Context", "## Decision", "## Consequence",
        ]  # fmt: skip


@pytest.mark.parametrize("name", TOP)
def test_links_of_the_top_pages_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", read(name), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "#", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path
        assert place.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(place.read_text(encoding="utf-8")), f"{name} links to {target}"


def anchors(text: str) -> set[str]:
    """What headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_make_lists_every_target_that_has_a_line() -> None:
    told = set(re.findall(r"^([a-z-]+):.*?## ", read("Makefile"), re.M))
    assert {"sweep", "serve", "demo", "test", "docs", "test-browser", "release"} <= told
