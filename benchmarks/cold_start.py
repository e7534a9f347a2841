"""How long from the start of `stratified-serve` until it is ready, and where that time goes?

    python -m benchmarks.cold_start                        (a MiniLM bundle is made for it)
    python -m benchmarks.cold_start --models results/hf_trainer_stratified --rounds 5

Starts the real program on free ports, reads its log until it says that it is ready, and stops it again; takes
medians over the rounds. The first round is left out: it reads the packages from the disk. Flags that are not
ours are handed to the program.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

FREE = ("--port", "0", "--probe-port", "0", "--metrics-port", "0", "--watch-seconds", "0")


def one_start(models: Path, flags: Sequence[str]) -> dict[str, float]:
    """Seconds after the start of the process at which each line of its log came, up to "ready"."""
    command = [
        sys.executable,
        "-m",
        "serving",
        "--models",
        str(models),
        *FREE,
        "--log-format",
        "json",
        *flags,
    ]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if process.stderr is None:
        raise RuntimeError("the program's log cannot be read")
    seen: dict[str, float] = {}
    other: list[str] = []
    try:
        for line in process.stderr:
            if not line.startswith("{"):
                other.append(line.rstrip())  # a library that speaks for itself, or why there is no start
                continue
            event = json.loads(line)["event"]
            seen.setdefault(event, time.monotonic() - began)
            if event == "ready":
                return seen
        raise RuntimeError(f"the program ended before it was ready: {[*other, *seen][-3:]}")
    finally:
        process.terminate()
        process.stderr.read()
        process.wait(30)


def table(rounds: Sequence[dict[str, float]]) -> list[tuple[str, float, float]]:
    """Each step, the median second at which it began, and how long it took until the next one."""
    steps = [name for name in rounds[0] if all(name in seen for seen in rounds)]
    at = [median(seen[name] for seen in rounds) for name in steps]
    ends = [*at[1:], at[-1]]
    return [(name, begin, end - begin) for name, begin, end in zip(steps, at, ends, strict=True)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, then the same as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--models", type=Path, help="a results folder or a bundle; default: a MiniLM bundle")
    parser.add_argument("--rounds", type=int, default=5, help="starts that are measured (default: 5)")
    arguments, flags = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.models
        if models is None:
            from benchmarks.bundles import REAL, make_bundle

            models = Path(folder) / "routing"
            make_bundle(models, shape=REAL, variant="routing", max_length=128)
        rounds = [one_start(models, flags) for _ in range(arguments.rounds + 1)][1:]
    rows = table(rounds)
    print(f"{'step':<32} {'begins at':>10} {'takes':>8}")
    for name, begin, seconds in rows:
        print(f"{name:<32} {begin:>8.2f} s {seconds:>6.2f} s")
    print(json.dumps({"ready_seconds": round(rows[-1][1], 2), "rounds": arguments.rounds, "flags": flags}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
