"""Writes the image locks anew: `python locks/refresh.py`; needs `uv` on the path or beside the interpreter.

It knows which extra each image installs and how the CPU build of torch is written down; it does not know any
index: uv uses the one that the machine is configured with. Resolves for x86-64 Linux and the oldest Python
that the project supports; the hashes cover all files of a release, which newer Pythons install from too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("train", "serve")
# PyTorch publishes CPU wheels on an index of its own; their hashes are pinned by hand when torch is raised.
TORCH_CPU_HASHES = {
    "2.13.0": {
        "cp311": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
        "cp312": "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
    },
}
# What only the CUDA build of torch asks for.
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b)")


def resolve(image: str) -> str:
    """The GPU lock of one image, as uv writes it. Raises CalledProcessError when uv cannot resolve."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    command = [
        *(
            uv,
            "pip",
            "compile",
            "--quiet",
            "pyproject.toml",
            "--extra",
            image,
            "--constraint",
            "constraints.txt",
        ),
        *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"),
        *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
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


def main() -> None:
    """Resolves each image once and writes both of its locks."""
    for image in IMAGES:
        gpu = "\n".join(blocks(resolve(image))) + "\n"
        header = f"# Distributions of the {image} image; `python locks/refresh.py` writes this file.\n"
        for accelerator, text in (("gpu", gpu), ("cpu", for_cpu(gpu))):
            (ROOT / "locks" / f"{image}-{accelerator}.lock").write_text(header + text, encoding="utf-8")


if __name__ == "__main__":
    main()
