"""What does each variant cost on each family of encoders, and how near do start and export stay?

Question: parameters, operations, time of forward and of forward with backward against `none`; the distance
of a fresh model from the library's own encoder, and of its exported graph from the model.

How: random weights (speed does not depend on them) of one shape in every family, texts of random ids, all
`--length` tokens long. The five variants of a family take turns in one process, in an order that is shuffled
each round; the time is the process's own on one thread, the ratio is taken within a round, and medians are
over rounds, the first of which warm up and are dropped. So whatever else the machine does hits all alike.
Parameters and operations are counted with the family's real vocabulary, in this shape and at base size (768
wide; 6 blocks, or 12), without weights.
Exports are of models whose zero-initialised parts were moved away from zero; the largest distance is over all
outputs, at lengths from 2 tokens to the longest, alone and padded together.

Output: the table, written between the markers of docs/models.md, and every figure as JSON in
benchmarks/results/. Ends with 1 when a target is missed: more than 8 % of parameters (moe excepted), or a
forward pass more than 35 % (moe 45 %) slower.

    make models-table                                            # all of it: some ten minutes
    python -m benchmarks.models --families distilbert --rounds 15 --no-exports --docs ''
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.model_costs import Row, measure_family
from benchmarks.record import RESULTS, processor, write_record
from stratified_models.tiny import TINY_FAMILIES

PACKAGES = ("torch", "transformers", "onnxruntime")
DOCS = Path("docs/models.md")
THREADS = 1
MARKERS = ("<!-- models-table -->", "<!-- end of models-table -->")
MOST_PARAMETERS = 0.08
SLOWEST = {"moe": 1.45}
SLOWEST_OTHERS = 1.35


def line(row: Row) -> str:
    """One row of the table in Markdown."""
    small = (row["identity_error"], row["onnx_error"])
    cells = [
        f"`{row['family']}`",
        row["variant"],
        f"{row['parameters']:,}",
        *(f"{100 * row[name]:+.1f} %" for name in ("parameters_added", "parameters_base_added")),
        f"{row['flops'] / 1e6:.1f} M",
        f"{100 * row['flops_added']:+.1f} %",
        *(f"{row[name]:.2f}" for name in ("forward_ratio", "backward_ratio")),
        *("–" if value is None else f"{value:.1e}" for value in small),
    ]
    return f"| {' | '.join(cells)} |"


def markdown(rows: Sequence[Row], said: str) -> str:
    """The table with its heading, and below it how it came about."""
    names = (
        "family", "variant", "parameters", "added", "added, base", "operations/token", "added",
        "forward ×", "forward + backward ×", "identity", "ONNX",
    )  # fmt: skip
    rule = "|---|---|" + "--:|" * (len(names) - 2)
    return "\n".join([f"| {' | '.join(names)} |", rule, *map(line, rows), "", said])


def misses(rows: Sequence[Row]) -> list[str]:
    """What is above its target, in words."""
    found = []
    for row in rows:
        who = f"{row['family']} {row['variant']}"
        for size in ("parameters_added", "parameters_base_added"):
            if row["variant"] != "moe" and row[size] > MOST_PARAMETERS:
                found.append(f"{who}: {100 * row[size]:.1f} % more parameters, above 8 %")
        most = SLOWEST.get(row["variant"], SLOWEST_OTHERS)
        if row["forward_ratio"] > most:
            found.append(f"{who}: forward {row['forward_ratio']:.2f} ×, above {most}")
    return found


def write_docs(path: Path, table: str) -> None:
    """Put `table` between the markers. Raises SystemExit where they are missing."""
    text = path.read_text(encoding="utf-8")
    start, end = text.find(MARKERS[0]), text.find(MARKERS[1])
    if not 0 <= start < end:
        raise SystemExit(f"{path}: no {MARKERS[0]} … {MARKERS[1]}; put both lines where the table belongs")
    path.write_text(f"{text[: start + len(MARKERS[0])]}\n{table}\n{text[end:]}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=TINY_FAMILIES, default=list(TINY_FAMILIES))
    parser.add_argument("--rows", type=int, default=8, help="texts of a batch")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--exports", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--docs", default=str(DOCS), help="page that holds the table; '' writes none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    rows = [row for family in options.families for row in measure_family(family, options)]
    now, chip = datetime.now(UTC), processor()
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    said = (
        f"{now:%Y-%m-%d}, one thread of {chip['cores']} ({', '.join(chip['extensions'])}), "
        f"{options.rows} × {options.length} tokens, medians of {options.rounds} rounds; "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}."
    )
    table = markdown(rows, said)
    print(table)
    record = {
        "settings": {"rows": options.rows, "length": options.length, "rounds": options.rounds},
        "threads": THREADS,
        "load_average": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "table": rows,
    }
    print(write_record("models", record, out=options.out))
    if options.docs:
        write_docs(Path(options.docs), table)
    missed = misses(rows)
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
