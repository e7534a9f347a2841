"""Writes the image locks anew: `python locks/refresh.py`; needs `uv` on the path or beside the interpreter.

It knows which extras each image installs, what an image without torch can do without, and how the CPU build
of torch is written down; it does not know any index: uv uses the one that the machine is configured with.
Resolves for x86-64 Linux and the oldest Python that the project supports; the hashes cover all files of a
release, which newer Pythons install from too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "locks"
# Image → extras of pyproject.toml. ONNX Runtime stands beside torch: the service measures which is faster.
WITH_TORCH = {"train": ("train",), "serve": ("serve", "onnx", "tracing")}
WITHOUT_TORCH = ("onnx", "tracing")
# What the service itself imports only where torch computes.
TORCH_SIDE = {"torch", "transformers", "safetensors", "pyyaml"}
# Asked for by distributions of the image without torch, and imported only by functions that the service never
# calls: downloads (tokenizers), the tools that rewrite graphs (onnxruntime).
UNUSED = ("huggingface-hub", "sympy", "coloredlogs")
# PyTorch publishes CPU wheels on an index of its own; their hashes are pinned by hand when torch is raised.
TORCH_CPU_HASHES = {
    "2.13.0": {
        "cp311": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
        "cp312": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    },
}
# What only the CUDA build of torch asks for.
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b)")


def project() -> tuple[list[str], Mapping[str, list[str]], list[str]]:
    """Dependencies, extras and build requirements, as pyproject.toml states them."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        tree = tomllib.load(stream)
    stated = tree["project"]
    return stated["dependencies"], stated["optional-dependencies"], tree["build-system"]["requires"]


def name_of(requirement: str) -> str:
    """The normalised name of the distribution that a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]).lower()


def requirements(extras: Iterable[str], *, without: Iterable[str] = ()) -> list[str]:
    """The project's own requirements with these extras, less the named distributions."""
    base, optional, _ = project()
    wanted = [*base, *(entry for extra in extras for entry in optional[extra])]
    return [entry for entry in wanted if name_of(entry) not in set(without)]


def resolve(wanted: Iterable[str], *, unused: Iterable[str] = ()) -> str:
    """A lock as uv writes it. `unused` are left out, with what only they need.

    Raises CalledProcessError when uv cannot resolve.
    """
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "compile", "--quiet", "-", "--constraint", "constraints.txt"]
    command += [
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-annotate",
        "--no-header",
    ]
    command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    overrides = FOLDER / ".overrides"
    try:
        if unused:  # an override that holds on no Python takes a distribution out of the resolution
            overrides.write_text("".join(f"{name}; python_version < '3'\n" for name in unused))
            command += ["--overrides", str(overrides)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            input="\n".join(wanted),
        )
    finally:
        overrides.unlink(missing_ok=True)
    return done.stdout


def blocks(lock: str) -> list[str]:
    """One string a distribution: the pin and its hash lines."""
    return [block.strip() for block in re.split(r"\n(?=\S)", lock) if block.strip()]


def for_cpu(lock: str) -> str:
    """The same pins with torch's CPU build, without CUDA. Raises KeyError when its hashes are unknown."""
    kept = [block for block in blocks(lock) if not CUDA_ONLY.match(block)]
    position, version = next(
        (number, found.group(1))
        for number, block in enumerate(kept)
        if (found := re.match(r"torch==([0-9.]+)", block))
    )
    hashes = TORCH_CPU_HASHES[version].values()
    # Without the local version: an index that carries `+cpu` in the file name alone is served as well.
    kept[position] = " \\\n    ".join([f"torch=={version}", *(f"--hash=sha256:{value}" for value in hashes)])
    return "\n".join(kept) + "\n"


def write(name: str, text: str) -> None:
    """One lock file, with a line that says what it is."""
    header = f"# Distributions of {name}; `python locks/refresh.py` writes this file.\n"
    (FOLDER / f"{name}.lock").write_text(header + "\n".join(blocks(text)) + "\n", encoding="utf-8")


def main() -> None:
    """Resolves each image once and writes its locks."""
    for image, extras in WITH_TORCH.items():
        gpu = resolve(requirements(extras))
        write(f"{image}-gpu", gpu)
        write(f"{image}-cpu", for_cpu(gpu))
    write("serve-onnx", resolve(requirements(WITHOUT_TORCH, without=TORCH_SIDE), unused=UNUSED))
    write("build", resolve(project()[2]))


if __name__ == "__main__":
    main()
