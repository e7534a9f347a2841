"""Both Dockerfiles: lint clean, hash-locked, hardened, and free of anybody's hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from k8s.checks import images
from locks import refresh

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = images.DOCKERFILES
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
    runs = [line for line in instructions(name) if line.startswith("RUN")]
    installs = [line for line in runs if "pip install" in line or "install.sh" in line]
    assert len(installs) >= 3
    script = (ROOT / "locks" / "install.sh").read_text()
    for line in installs:
        said = line + script if "install.sh" in line else line
        assert "--no-deps" in said
        assert "--require-hashes" in said or "--no-index" in said
        if "--require-hashes" in said:
            assert "type=secret,id=pip" in line
            assert "type=secret,id=ca" in line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_code_is_the_last_layer_of_every_image(name: str) -> None:
    stages = "\n".join(instructions(name)).split("\nFROM ")
    finals = [stage for stage in stages if "COPY --from=code " in stage]
    assert len(finals) >= 2
    for stage in finals:
        steps = [line for line in stage.splitlines()[1:] if line.split(" ")[0] in {"COPY", "RUN", "ADD"}]
        assert steps[-1] == "COPY --from=code /opt/app /opt/app"


@pytest.mark.parametrize("image", images.IMAGES.values(), ids=lambda image: image.target)
def test_each_checked_image_is_a_target_with_its_lock(image: images.Image) -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / image.dockerfile).read_text(), re.MULTILINE)
    assert image.target in {name for _, name in stages}
    assert ROOT / "locks" / image.lock in LOCKS


def test_the_default_service_is_the_one_without_torch() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / "Dockerfile.serve").read_text(), re.MULTILINE)
    assert stages[-1] == ("serve-onnx", "serve")
    assert not re.search(r"^(torch|transformers|sympy)==", (ROOT / "locks/serve-onnx.lock").read_text(), re.M)


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
                pattern = "locks/*.lock" if source.endswith(".lock") else source
                assert pattern in allowed, line


def test_every_lock_pins_and_hashes_and_agrees_with_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    wanted = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    wanted_files = {f"{image}-{kind}.lock" for image in ("serve", "train") for kind in ("cpu", "gpu")}
    assert {path.name for path in LOCKS} == wanted_files | {"build.lock", "serve-onnx.lock"}
    for path in LOCKS:
        for block in re.split(r"\n(?=[\w])", path.read_text()):
            if block.startswith("#"):
                continue
            name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]  # fails the test
            assert "--hash=sha256:" in block, name
            assert wanted.get(name, version) == version, f"{path.name}: {name}; run python locks/refresh.py"


@pytest.mark.parametrize("image", refresh.WITH_TORCH)
def test_every_requirement_of_the_project_is_in_its_images_locks(image: str) -> None:
    names = set(map(refresh.name_of, refresh.requirements(refresh.WITH_TORCH[image])))
    for path in LOCKS:
        if path.name in {f"{image}-cpu.lock", f"{image}-gpu.lock"}:
            assert names <= locked(path), (
                f"{path.name} lacks {names - locked(path)}; run python locks/refresh.py"
            )


def test_the_lock_without_torch_has_everything_else_that_the_service_asks_for() -> None:
    wanted = refresh.requirements(refresh.WITHOUT_TORCH, without=refresh.TORCH_SIDE)
    found = locked(ROOT / "locks" / "serve-onnx.lock")
    assert set(map(refresh.name_of, wanted)) <= found
    assert not found & {*refresh.TORCH_SIDE, *refresh.UNUSED}


def test_the_build_lock_has_what_building_asks_for() -> None:
    assert set(map(refresh.name_of, refresh.project()[2])) == locked(ROOT / "locks" / "build.lock")


def locked(path: Path) -> set[str]:
    return set(re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE))


HIDDEN = """
import sys
sys.modules.update(dict.fromkeys({names}))  # as if they were not installed
import serving.__main__, serving.app, serving.classify, serving.loading, serving.engines.onnx
"""


def test_the_service_starts_without_what_its_image_leaves_out() -> None:
    hidden = {"torch", "transformers", "safetensors", "yaml", "huggingface_hub", "sympy", "coloredlogs"}
    script = HIDDEN.replace("{names}", repr(hidden))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-800:]


def test_cpu_locks_bring_no_cuda() -> None:
    for path in LOCKS:
        has_cuda = "nvidia-" in path.read_text()
        assert has_cuda == path.name.endswith("gpu.lock")
