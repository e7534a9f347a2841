"""Both Dockerfiles: lint clean, hash-locked, hardened, and free of anybody's hosts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from k8s.checks import images

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = tuple(f"Dockerfile.{name}" for name in images.BUDGETS)
LOCKS = sorted((ROOT / "locks").glob("*.lock"))


def instructions(name: str) -> list[str]:
    """The instructions of one Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def test_hadolint_finds_nothing() -> None:
    line = images.lint()
    if line.startswith("not covered"):
        pytest.skip(line)
    assert line.startswith("covered")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_no_frontend_is_fetched_and_no_host_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "# syntax=" not in text
    assert not re.search(r"https?://|index-url|trusted-host", text)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_installed_is_hashed_and_leaves_no_secret(name: str) -> None:
    installs = [line for line in instructions(name) if "pip install" in line]
    assert installs
    for line in installs:
        assert "--no-deps" in line
        assert "--require-hashes" in line or "--no-index" in line
        if "--require-hashes" in line:
            assert "type=secret,id=pip" in line
            assert "type=secret,id=ca" in line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_last_stage_runs_as_a_number_in_exec_form(name: str) -> None:
    lines = instructions(name)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001:10001"
    for word in ("ENTRYPOINT", "CMD"):
        assert all(re.match(rf"{word} \[", line) for line in lines if line.startswith(word))
    assert "STOPSIGNAL SIGTERM" in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_only_what_is_let_into_the_context_is_copied(name: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in instructions(name):
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                pattern = "locks/*.lock" if source.startswith("locks/") else source
                assert pattern in allowed, line


def test_every_lock_pins_and_hashes_and_agrees_with_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    wanted = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    assert [path.name for path in LOCKS] == [
        f"{image}-{accelerator}.lock" for image in ("serve", "train") for accelerator in ("cpu", "gpu")
    ]
    for path in LOCKS:
        for block in re.split(r"\n(?=[\w])", path.read_text()):
            if block.startswith("#"):
                continue
            name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]  # fails the test
            assert "--hash=sha256:" in block, name
            assert wanted.get(name, version) == version, f"{path.name}: {name}; run python locks/refresh.py"


@pytest.mark.parametrize("image", ["serve", "train"])
def test_every_requirement_of_the_project_is_in_its_images_locks(image: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][image]]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", entry)[0]).lower() for entry in wanted}
    for path in LOCKS:
        if path.name.startswith(image):
            locked = set(re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE))
            assert names <= locked, f"{path.name} lacks {names - locked}; run python locks/refresh.py"


def test_cpu_locks_bring_no_cuda() -> None:
    for path in LOCKS:
        has_cuda = "nvidia-" in path.read_text()
        assert has_cuda == path.name.endswith("gpu.lock")
