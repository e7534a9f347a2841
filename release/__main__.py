"""`make release VERSION=…`: wheel and sdist, checked by twine and in an empty environment; the changelog.

    python -m release VERSION [--out dist] [--whole]

Nothing is uploaded and nothing is tagged: a person does that, with what lies in the folder. VERSION must be
the one in pyproject.toml, and the changelog must have something under "Unreleased". Exit codes: 0 done; 2
refused; others are those of the tool that failed.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## Unreleased"
SCRIPTS = ("stratified-train", "stratified-serve", "stratified-classify", "stratified-demo")


class Refused(Exception):  # noqa: N818  a meaning
    """One line with the value, the rule and the cure."""


def main(argv: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Build, check, and write the entry; the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--out", type=Path, default=root / "dist", help="folder of wheel and sdist")
    parser.add_argument(
        "--whole", action="store_true", help="install the requirements too, and start each program"
    )
    options = parser.parse_args(argv)
    try:
        agree(root, options.version)
        changed = entry((root / "CHANGELOG.md").read_text(encoding="utf-8"), options.version, today())
    except Refused as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    code = build(root, options.out) or try_out(options.out, options.version, whole=options.whole)
    if code == 0:
        (root / "CHANGELOG.md").write_text(changed, encoding="utf-8")
        print(f"{options.out} holds {options.version}, CHANGELOG.md its entry: look, commit, tag it")
    return code


def today() -> str:
    """The date of the entry."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def agree(root: Path, version: str) -> None:
    """Refuse a version that is not the project's own."""
    own = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if own != version:
        raise Refused(f"version {version!r} is not that of pyproject.toml, {own!r}; change one of them")


def entry(changelog: str, version: str, date: str) -> str:
    """The changelog with what was unreleased under the version, and room for what comes next."""
    if f"## {version} " in changelog:
        raise Refused(f"CHANGELOG.md has an entry for {version} already; raise the version")
    before, heading, rest = changelog.partition(f"{HEADING}\n")
    if not heading or not rest.partition("\n## ")[0].strip():
        raise Refused(f"CHANGELOG.md has nothing under {HEADING!r}; write what changed")
    return f"{before}{HEADING}\n\n## {version} - {date}\n{rest}"


def build(root: Path, out: Path) -> int:
    """Wheel and sdist into `out`, and twine's look at them; the first exit code that is not 0."""
    made = [sys.executable, "-m", "build", "--outdir", str(out), str(root)]
    if code := subprocess.run(made, check=False).returncode:
        return code
    files = [str(path) for path in sorted(out.iterdir()) if path.suffix in (".whl", ".gz")]
    return subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], check=False
    ).returncode


def try_out(out: Path, version: str, *, whole: bool) -> int:
    """Install the wheel into an empty environment, and look for what it must bring; the exit code."""
    (wheel,) = out.glob(f"*-{version}-*.whl")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        programs = Path(folder) / "bin"
        deep = [] if whole else ["--no-deps"]
        install: list[str | Path] = [programs / "python", "-m", "pip", "install", "-q", *deep, str(wheel)]
        if code := subprocess.run(install, check=False).returncode:
            return code
        listing: list[str | Path] = [programs / "python", "-c", LISTING]
        files = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines()
        missing = [name for name in SCRIPTS if not (programs / name).is_file()]
        if missing := missing + [name for name in NEEDED if name not in files]:
            lacks = f"{wheel.name} lacks {', '.join(missing)}"
            print(f"release: {lacks}; see [tool.setuptools] in pyproject.toml", file=sys.stderr)
            return 1
        starts: list[list[str | Path]] = [[programs / name, "--help"] for name in SCRIPTS] if whole else []
        return max(
            (subprocess.run(c, check=False, stdout=subprocess.DEVNULL).returncode for c in starts), default=0
        )


LISTING = "from importlib.metadata import files; print(*files('stratified-sentiment'), sep='\\n')"
NEEDED = (
    "demo/page.css",
    "protos/stratified/v1/sentiment.proto",
    "protos/stratified/v1/sentiment_pb2.pyi",
    "serving/py.typed",
    "trainer_job/configs/quickstart.yaml",
    "trainer_job/schemas/results.schema.json",
    "trainer_job/templates/report.html.j2",
)


if __name__ == "__main__":
    raise SystemExit(main())
