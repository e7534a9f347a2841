"""How much memory does building a corpus take, and does it grow with the rows?

Theory: texts go through in batches and stay on disk, memory-mapped; what is decided over (key, label, place)
is some 40 bytes a row, and the span level adds an anchor a row. Each size is built in a process of its own,
whose peak is read.

    python -m benchmarks.rows --data DIR --rows 10000 1000000 --levels exact span

DIR holds JSON lines with `text` and `label`; its rows are repeated, each with a number in front, so that none
repeats.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LABELS = ("negative", "neutral", "positive")


def main(arguments: Sequence[str] | None = None) -> None:
    """Build each size, and print one line of JSON for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--levels", nargs="+", default=["exact", "span"], choices=["exact", "span", "near"])
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.build is not None:
        print(json.dumps(build(options.build, options.levels)))
        return
    for count in options.rows:
        with tempfile.TemporaryDirectory() as place:
            size = write_rows(options.data, Path(place) / "rows.jsonl", count)
            command = [sys.executable, "-m", "benchmarks.rows", "--data", str(options.data), "--build", place]
            run = subprocess.run(
                [*command, "--levels", *options.levels], capture_output=True, text=True, check=True
            )
            found = json.loads(run.stdout)
            record = {"rows": count, "file_mb": size / 1e6, "levels": options.levels, **found}
            print(json.dumps({**record, "machine": platform.machine(), "python": platform.python_version()}))


def write_rows(source: Path, target: Path, count: int) -> int:
    """Write so many distinct rows; returns the file's bytes. Raises SystemExit where there are none."""
    if next(texts(source), None) is None:
        raise SystemExit(f"--data {source}: no row in any */*.jsonl; name the folder above the domains")
    with target.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(itertools.islice(itertools.cycle(texts(source)), count)):
            text = f"row{number:09d} {row['text']}"
            stream.write(json.dumps({"text": text, "label": row["label"]}, ensure_ascii=False) + "\n")
    return target.stat().st_size


def texts(source: Path) -> Iterator[dict[str, Any]]:
    """Every row below a folder."""
    for path in sorted(source.glob("*/*.jsonl")):
        with path.open(encoding="utf-8") as stream:
            yield from (json.loads(line) for line in stream)


def build(place: Path, levels: list[str]) -> dict[str, Any]:
    """Build the corpus in this process; returns seconds, resident peaks in MB, and rows."""
    from trainer_job.config import DataConfig
    from trainer_job.data import load_corpus

    config = DataConfig.model_validate(
        {
            "root": place,
            "train_samples": None,
            "leak_levels": levels,
            "domains": {
                "rows": {
                    "source": {"kind": "files", "splits": {"train": "rows.jsonl"}},
                    "label_map": {label: label for label in LABELS},
                    "labels": list(LABELS),
                }
            },
        }
    )
    before, began = peak(), time.perf_counter()
    corpus = load_corpus(config, cache=place / "cache")
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": round(peak()),
        "peak_before_mb": round(before),
        "anonymous_mb": round(status("RssAnon")),
        "kept": {split: len(table) for split, table in corpus.splits.items()},
    }


def peak() -> float:
    """Resident peak of this process in MB, mapped pages of files included."""
    return status("VmHWM")


def status(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


if __name__ == "__main__":
    main()
