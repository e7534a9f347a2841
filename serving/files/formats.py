"""Which format a file has, by its name; it opens none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.files.rows import BadInput

READABLE = ("txt", "csv", "tsv", "jsonl", "parquet")
WRITABLE = ("csv", "tsv", "jsonl", "parquet")
ALIASES = {"ndjson": "jsonl", "pq": "parquet", "text": "txt", "log": "txt"}
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Format:
    """`kind` is one of `READABLE`; `packed` says whether gzip is around it."""

    kind: str
    packed: bool = False


def format_to_read(path: str) -> Format:
    """By extension; stdin is plain text, one text a line. Raises `BadInput`."""
    if path == STDIN:
        return Format("txt")
    found = _named(path)
    if found is None or found.kind not in READABLE:
        raise BadInput(f"{path}: unknown format; give {_listed(READABLE)}")
    return found


def format_to_write(path: str) -> Format:
    """By extension; raises `BadInput`."""
    if path == STDIN:
        raise BadInput("--output -: leave --output out to print, with --json for one object a row")
    found = _named(path)
    if found is None or found.kind not in WRITABLE:
        raise BadInput(f"--output {path}: unknown format; give {_listed(WRITABLE)}")
    return found


def _named(path: str) -> Format | None:
    suffixes = [suffix[1:].lower() for suffix in Path(path).suffixes]
    packed = suffixes[-1:] == ["gz"]
    if packed:
        suffixes.pop()
    kind = ALIASES.get(suffixes[-1], suffixes[-1]) if suffixes else ""
    if not kind or (packed and kind == "parquet"):
        return None
    return Format(kind, packed)


def _listed(kinds: tuple[str, ...]) -> str:
    names = [f".{kind}{'' if kind == 'parquet' else '[.gz]'}" for kind in kinds]
    return f"{', '.join(names[:-1])} or {names[-1]}"
