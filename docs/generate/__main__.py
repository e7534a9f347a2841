"""`python -m docs.generate` writes docs/reference/ and the drawings.

With `--check` it writes nothing, says what differs from what it would write, and then ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from docs.generate import codes, commands, contract, drawings, fields, instruments, record

DOCS = Path(__file__).resolve().parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands.write,
    "reference/settings.md": fields.write_settings,
    "reference/yaml.md": fields.write_keys,
    "reference/results.md": record.write,
    "reference/protos.md": contract.write,
    "reference/metrics.md": instruments.write,
    "reference/exit-codes.md": codes.write,
    "images/strata.svg": drawings.strata,
    "images/batching.svg": drawings.batching,
    "images/floors.svg": drawings.floors,
}


def main(argv: Sequence[str] | None = None, *, root: Path = DOCS) -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a file differs")
    checking = parser.parse_args(argv).check
    stale = [name for name, make in PAGES.items() if _differs(root / name, make(), write=not checking)]
    for name in stale:
        word = "stale" if checking else "written"
        print(f"{word}: docs/{name}")
    if checking and stale:
        print("run `python -m docs.generate`", file=sys.stderr)
        return 1
    return 0


def _differs(path: Path, text: str, *, write: bool) -> bool:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
