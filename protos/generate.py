"""Regenerates the Python code of the wire contract, or proves that the committed code is fresh.

`python -m protos.generate` writes the code, `--check` compares it with what is committed, `--lint` and
`--breaking DIR` run buf. It knows the files and the tools; it knows nothing of what the messages mean.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.resources
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CONTRACTS = ("inference", "stratified")  # folders: the Open Inference Protocol, and our own
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def sources() -> list[Path]:
    """Every .proto of the contract, relative to the repository, in a fixed order."""
    found = (path for contract in CONTRACTS for path in (HERE / contract).rglob("*.proto"))
    return sorted(path.relative_to(REPOSITORY) for path in found)


def google_protos() -> Path:
    """The folder that holds `google/rpc/status.proto`, out of the installed googleapis-common-protos."""
    distribution = importlib.metadata.distribution("googleapis-common-protos")
    return Path(str(distribution.locate_file("")))


def generate(target: Path) -> None:
    """Write the code of every .proto under `target`, in the layout of the repository.

    Raises `RuntimeError` with the compiler's own words when a .proto does not compile.
    """
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{well_known}", f"-I{google_protos()}"]
    command += [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command += [str(path) for path in sources()]
    search = (
        f"{Path(sys.executable).parent}:/usr/bin:/bin"  # protoc finds its mypy plug-in beside the interpreter
    )
    done = subprocess.run(
        command, cwd=REPOSITORY, env={"PATH": search}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())


def generated_files(root: Path) -> dict[str, bytes]:
    """Generated files below `root`, by their path relative to it."""
    found = (path for contract in CONTRACTS for path in (root / "protos" / contract).rglob("*"))
    generated = (path for path in found if path.name.endswith(GENERATED))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(generated)}


def stale() -> list[str]:
    """Paths that differ between the committed code and fresh code; missing and left-over ones too."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = generated_files(Path(folder))
    committed = generated_files(REPOSITORY)
    return sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))


def buf_workspace(root: Path, folder: Path) -> None:
    """Lay out the contract under `root` the way buf wants it, google/rpc beside it."""
    shutil.copy(root / "buf.yaml", folder)
    for contract in CONTRACTS:
        if (root / contract).is_dir():  # an older release may not have it yet
            ignored = shutil.ignore_patterns("*.py", "*.pyi")
            shutil.copytree(root / contract, folder / contract, ignore=ignored)
    (folder / "google" / "rpc").mkdir(parents=True)
    shutil.copy(google_protos() / "google" / "rpc" / "status.proto", folder / "google" / "rpc")


def buf(subcommand: str, against: Path | None = None) -> int:
    """Run `buf lint`, or `buf breaking` against the `protos` folder of an older release; buf's exit code."""
    program = shutil.which("buf", path=f"{Path(sys.executable).parent}") or shutil.which("buf")
    if program is None:
        print("buf is not installed; pip install buf-bin", file=sys.stderr)  # noqa: T201  a command line speaks
        return 2
    with tempfile.TemporaryDirectory() as new, tempfile.TemporaryDirectory() as old:
        buf_workspace(HERE, Path(new))
        command = [program, subcommand, new]
        if against is None:
            for contract in CONTRACTS:  # what is Google's is not ours to lint
                command += ["--path", f"{new}/{contract}"]
        else:
            buf_workspace(against.resolve(), Path(old))
            command += ["--against", old]
        return subprocess.run(command, check=False).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when all is well, 1 when the committed code is stale or a .proto does not compile."""
    parser = argparse.ArgumentParser(prog="python -m protos.generate", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--check", action="store_true", help="write nothing; fail when the committed code is stale"
    )
    choice.add_argument("--lint", action="store_true", help="run buf lint")
    choice.add_argument(
        "--breaking", type=Path, metavar="DIR", help="run buf breaking against an older protos folder"
    )
    arguments = parser.parse_args(argv)
    if arguments.lint or arguments.breaking:
        return buf("breaking" if arguments.breaking else "lint", arguments.breaking)
    try:
        if not arguments.check:
            generate(REPOSITORY)
            return 0
        outdated = stale()
    except RuntimeError as error:
        print(error, file=sys.stderr)  # noqa: T201  a command line speaks
        return 1
    if outdated:
        cure = "run `python -m protos.generate` and commit the result"
        print(f"stale generated code: {', '.join(outdated)}; {cure}", file=sys.stderr)  # noqa: T201  a command line speaks
    return int(bool(outdated))


if __name__ == "__main__":
    raise SystemExit(main())
