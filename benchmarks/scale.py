"""How do time and memory grow with rows, tokens, strata and experts?

Theory: work is a sum over tokens, so rows and length enter once, save for attention within a text, whose
share is small up to 512 tokens; a stratum adds low-rank terms beside a block that stays as large, and of the
experts a token meets two, however many there are (their weights, and with them a step's gradients, do grow).

How: along one axis at a time, the others fixed, in the shape of MiniLM with random weights, on one thread.
Sizes take turns within a round, in an order drawn anew; times are the process's own. Memory is the growth of
the resident peak over one run in a fresh process. Building data is measured in a fresh process per size, on
made-up rows that are all different. Each exponent is the slope of a line through log(measured) over
log(size); `last` is that between the two largest sizes, which says more of what comes beyond them.

    python -m benchmarks.scale                       # a quarter of an hour on one core
    python -m benchmarks.scale --rounds 1 --largest 2 --data-rows 200 400 --out DIR
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from benchmarks.model_costs import build
from benchmarks.record import RESULTS, alternate, asked, write_record
from benchmarks.rows import LABELS, status
from benchmarks.texts import made_up

Row = dict[str, Any]
THREADS = 1


@dataclass(frozen=True)
class Axis:
    """What grows, through `sizes`, for one variant; the rest stays at `rows` texts of `length` tokens."""

    name: str
    variant: str
    sizes: tuple[int, ...]
    rows: int = 8
    length: int = 64
    option: str = ""  # of the model, where the model grows

    def at(self, size: int) -> tuple[int, int, dict[str, int]]:
        """Texts, tokens of each, and options of the model."""
        grown = {"rows": (size, self.length), "length": (self.rows, size)}
        rows, length = grown.get(self.name, (self.rows, self.length))
        return rows, length, {self.option: size} if self.option else {}


AXES = (
    Axis("rows", "none", (4, 8, 16, 32, 64)),
    Axis("rows", "moe", (4, 8, 16, 32, 64)),
    Axis("length", "none", (32, 64, 128, 256, 512)),
    Axis("length", "attention", (32, 64, 128, 256, 512)),
    Axis("strata", "attention", (4, 8, 16, 32, 64), option="num_strata"),
    Axis("strata", "routing", (4, 8, 16, 32, 64), option="num_strata"),
    Axis("strata", "layers", (4, 8, 16, 32, 64), option="num_strata"),
    Axis("experts", "moe", (2, 4, 8, 16, 32), option="num_experts"),
)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the line through log(value) over log(size)."""
    return linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope


def work(axis: Axis, size: int, folder: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """(forward, forward with backward) at one size, each on a model of its own."""
    import torch

    rows, length, options = axis.at(size)
    ids = torch.randint(5, 200, (rows, length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    zeros = torch.zeros(rows, dtype=torch.long)
    served = build(folder, "distilbert", axis.variant, **options).prepare_for_inference()
    trained = build(folder, "distilbert", axis.variant, **options).train()

    def forward() -> None:
        with torch.inference_mode():
            served(**batch)

    def step() -> None:
        trained(**batch, labels=zeros, domain_id=zeros).loss.backward()
        trained.zero_grad()

    return forward, step


def model_rows(axis: Axis, options: argparse.Namespace, folder: Path) -> list[Row]:
    """Time and memory of forward and of forward with backward along one axis."""
    sizes = axis.sizes[: options.largest]
    both = {size: work(axis, size, folder) for size in sizes}
    rows = []
    for place, kind in enumerate(("forward", "forward and backward")):
        samples = alternate({str(size): both[size][place] for size in sizes}, rounds=options.rounds)
        seconds = [median(taken["cpu"] for taken in samples[str(size)]) for size in sizes]
        memory = [grown(AXES.index(axis), size, place, folder) for size in sizes]
        rows.append(row(axis.name, f"{axis.variant}, {kind}", sizes, seconds, memory))
    return rows


def row(axis: str, what: str, sizes: Sequence[int], seconds: Sequence[float], memory: Sequence[float]) -> Row:
    """One line of the table, with its exponents."""
    fits = {
        name: {"fitted": exponent(sizes, values), "last": exponent(sizes[-2:], values[-2:])}
        for name, values in (("seconds", seconds), ("memory", memory))
    }
    measured = {"sizes": list(sizes), "seconds": list(seconds), "memory_mb": list(memory)}
    return {"axis": axis, "what": what, **measured, "exponents": fits}


def grown(axis: int, size: int, place: int, folder: Path) -> float:
    """MB by which the resident peak of a fresh process grows over one run."""
    command = [sys.executable, "-m", "benchmarks.scale", "--once", str(axis), str(size), str(place)]
    run = subprocess.run([*command, "--folder", str(folder)], capture_output=True, text=True, check=True)
    return float(run.stdout)


def once(axis: int, size: int, place: int, folder: Path) -> None:
    """Print what one run adds to the resident memory of this process, in MB."""
    import torch

    torch.set_num_threads(THREADS)
    run = work(AXES[axis], size, folder)[place]
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far was loading
    run()
    print(max(status("VmHWM") - before, 0.1))


def data_rows(counts: Sequence[int], levels: Sequence[str]) -> Row:
    """Building a corpus of so many rows: seconds and resident peak of a fresh process."""
    built = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            source = Path(name) / "source" / "made-up"
            source.mkdir(parents=True)
            rows = enumerate(made_up(min(count, 5000)))
            lines = (json.dumps({"text": text, "label": LABELS[place % 3]}) for place, text in rows)
            (source / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks.rows", "--data", str(source.parent)]
            command += ["--rows", str(count), "--levels", *levels]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            built.append(json.loads(run.stdout.splitlines()[-1]))
        print(f"data, {count} rows: done", file=sys.stderr, flush=True)
    seconds, peaks = [found["seconds"] for found in built], [found["peak_mb"] for found in built]
    return row("data", f"building, {' and '.join(levels)}", counts, [max(s, 0.1) for s in seconds], peaks)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    heading = "| grows | what | from … to | time: exponent | last | memory: exponent | last |"
    lines = [heading, "|---|---|---|" + "--:|" * 4]
    for found in rows:
        time, memory = found["exponents"]["seconds"], found["exponents"]["memory"]
        figures = [time["fitted"], time["last"], memory["fitted"], memory["last"]]
        cells = [found["axis"], found["what"], f"{found['sizes'][0]:,} … {found['sizes'][-1]:,}"]
        lines.append(f"| {' | '.join([*cells, *(f'{value:.2f}' for value in figures)])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    names = list(dict.fromkeys(axis.name for axis in AXES))
    parser.add_argument("--axes", nargs="*", choices=names, default=names)
    parser.add_argument("--largest", type=int, default=5, help="how many sizes of each axis, from the least")
    parser.add_argument("--data-rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--levels", nargs="+", default=["exact", "span"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--once", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.once:
        axis, size, place = options.once
        once(axis, size, place, options.folder)
        return
    import torch

    torch.set_num_threads(THREADS)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for axis in (axis for axis in AXES if axis.name in options.axes):
            rows += model_rows(axis, options, Path(name) / "backbone")
            print(f"{axis.name}, {axis.variant}: done", file=sys.stderr, flush=True)
    if options.data_rows:
        rows.append(data_rows(options.data_rows, options.levels))
    print(table(rows))
    kept = {key: value for key, value in asked(options).items() if key not in ("once", "folder")}
    print(write_record("scale", {**kept, "threads": THREADS, "table": rows}, out=options.out))


if __name__ == "__main__":
    main()
