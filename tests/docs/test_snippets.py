"""Every command and every snippet of README and docs/: run where that is quick, read by the real parser where
it is not, or marked in the source as needing a long run, a GPU or a cluster.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.generate.programs import parse, programs
from stratified_models.tiny import tiny_tokenizer
from tests.docs.snippets import PROGRAMS, ROOT, Snippet, commands, snippets
from trainer_job.config import RunConfig
from trainer_job.loading import apply_settings

ALL = snippets()
MARKS = ("long", "gpu", "cluster", "service", "parse", "shell", "python", "yaml")
SHELL = [snippet for snippet in ALL if snippet.is_shell]
PYTHON = [snippet for snippet in ALL if snippet.language == "python"]
YAML = [snippet for snippet in ALL if snippet.language == "yaml"]
QUICK = {("stratified-classify",), ("stratified-train", "plan"), ("stratified-train", "schema")}
TREE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
FILE = re.compile(r"^(?:k8s|docs|examples|trainer_job|locks|benchmarks)/[\w./-]+$")


def named(found: list[Snippet]) -> pytest.MarkDecorator:
    """A test of its own for each snippet."""
    return pytest.mark.parametrize("snippet", found, ids=[snippet.name for snippet in found])


def test_every_mark_is_one_that_is_known() -> None:
    assert {snippet.mark.split()[0] for snippet in ALL if snippet.mark} <= set(MARKS)


def test_there_are_snippets_of_every_kind() -> None:
    assert len(SHELL) > 20
    assert len(PYTHON) > 3
    assert YAML


@named(SHELL)
def test_commands_are_what_the_programs_take(
    snippet: Snippet, place: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("STRATIFIED_TARGET", served)
    for words in commands(snippet.body):
        checked(words, snippet, served)


def checked(words: list[str], snippet: Snippet, served: str) -> None:
    """Run, parse, or look up one command."""
    name = words[0]
    if name in PROGRAMS:
        argv = ["x" if "$" in word else re.sub(r"^\[(-.*)\]$", r"\1", word) for word in words[1:]]
        values = parse(programs()[name], argv)
        if settings := getattr(values, "settings", None):
            apply_settings({}, settings)
        if not snippet.mark and any(tuple(words[: len(quick)]) == quick for quick in QUICK):
            run(name, argv, served)
    elif name == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        asked = [word for word in words[1:] if "=" not in word]
        assert set(asked) <= targets, f"{snippet.name}: make has no target {set(asked) - targets}"
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("k8s", "benchmarks", "docs", "protos"):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file() or (
            ROOT / words[2].replace(".", "/") / "__main__.py"
        ).is_file(), f"{snippet.name}: no module {words[2]}"
    for word in words:
        if FILE.match(word) and "NAME" not in word and "*" not in word:
            assert (ROOT / word).exists(), f"{snippet.name}: {word} is not in the repository"


def run(name: str, argv: list[str], served: str) -> None:
    """Run a command as its user would, on the service and the folder of these tests."""
    if any(flag in argv for flag in ("--tls", "--token-file", "--config")) and "quickstart" not in argv:
        return  # another machine's certificates, or a file that the reader writes
    if "-" in argv or any("://" in word for word in argv):
        return  # reads what somebody types
    assert programs()[name](argv) == 0, f"{name} {' '.join(argv)}"


@named([snippet for snippet in SHELL if snippet.mark == "shell"])
def test_marked_blocks_run_as_they_stand(snippet: Snippet, place: Path, tmp_path: Path) -> None:
    (tmp_path / "trainer_job").symlink_to(ROOT / "trainer_job")
    (tmp_path / "results").symlink_to(place / "results")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", snippet.body],
        cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@named(PYTHON)
def test_python_runs(snippet: Snippet, place: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    code = re.sub(r"127\.0\.0\.1:50051", served, snippet.body)
    code = re.sub(r"timeout=\d+", "timeout=120", code)  # the machine may be busy
    if missing := sorted(name for name in imported(code) if importlib.util.find_spec(name) is None):
        pytest.skip(f"not installed here: {', '.join(missing)}")
    if {"tritonclient", "kserve"} & imported(code):  # they bring another protocol's contract, under our names
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        return
    execute(code, snippet.name, names(served))


def imported(code: str) -> set[str]:
    """The packages that a snippet imports."""
    nodes = list(ast.walk(compile(code, "x", "exec", flags=TREE, dont_inherit=True)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in plain | named}


def execute(code: str, name: str, scope: dict[str, Any]) -> None:
    """Run a snippet, also one that awaits at its top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    made = compile(code, name, "exec", flags=flags, dont_inherit=True)
    if made.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(made, scope))
    else:
        exec(made, scope)


def names(served: str) -> dict[str, Any]:
    """What snippets speak of without making it."""
    from prometheus_client import CollectorRegistry

    from serving.app import App
    from serving.engines.fake import FakeSource
    from tests.serving.conftest import settings

    source = {"kind": "files", "splits": {"train": "shoes.csv"}}
    stars = {"1": "negative", "2": "negative", "3": "neutral", "4": "positive", "5": "positive"}
    labels = ["negative", "neutral", "positive"]
    domain = {"source": source, "label": "stars", "label_map": stars, "labels": labels}
    return {
        "TARGET": served,
        "texts": ["good", "bad"],
        "text": "good",
        "section": {"domains": {"shoes": domain}, "train_samples": 32},
        "tokenizer": tiny_tokenizer(),
        "settings": settings(),
        "App": App,
        "FakeSource": FakeSource,
        "CollectorRegistry": CollectorRegistry,
    }


@named(YAML)
def test_yaml_is_a_configuration(snippet: Snippet) -> None:
    tree = yaml.safe_load(snippet.body)
    assert isinstance(tree, dict)
    if "data" in tree:
        RunConfig.model_validate(tree)


def test_a_wrong_flag_would_be_found() -> None:
    wrong = Snippet("x.md", 1, "", "", "stratified-train plan --confg quickstart")
    (words,) = commands(wrong.body)
    with pytest.raises(SystemExit):
        checked(words, wrong, "127.0.0.1:1")


def test_shell_is_read_as_a_shell_reads_it() -> None:
    body = "a --b 'c d' \\\n  e > out  # told\ncat >> f <<'Y'\nnot a command\nY\nf | g && h\n"
    assert list(commands(body)) == [["a", "--b", "c d", "e"], ["cat"], ["f"], ["g"], ["h"]]
