"""The short run: engine, strata, server and training one after the other, in about ten minutes on two cores.

Each is a program of its own, run as such; what they print stands together at the end.

    python -m benchmarks
    python -m benchmarks --brief --out /tmp        # seconds: does everything still work?
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS

RUNS: dict[str, tuple[str, ...]] = {
    "engines": ("--rounds", "9", "--threads", "1", "--no-int8"),
    "strata": ("--texts", "60", "--rounds", "4"),
    "server": ("--texts", "150", "--rounds", "3"),
    "training": ("--texts", "160", "--rounds", "2"),
}
BRIEF: dict[str, tuple[str, ...]] = {
    "engines": ("--shape", "tiny", "--rounds", "2", "--lengths", "8", "--threads", "1", "--no-int8"),
    "strata": ("--shape", "tiny", "--texts", "4", "--rounds", "2", "--engines", "onnx"),
    "server": ("--shape", "tiny", "--texts", "8", "--rounds", "1", "--engine", "torch", "--callers", "2"),
    "training": ("--shape", "tiny", "--texts", "32", "--rounds", "1", "--length", "64"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, print everything at the end; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), default=list(RUNS))
    parser.add_argument("--brief", action="store_true", help="a tiny model and few texts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    told, failed = [], 0
    for name in options.only:
        flags = (BRIEF if options.brief else RUNS)[name]
        started = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *flags, "--out", str(options.out)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        failed |= int(done.returncode != 0)
        told.append(f"## {name}, {time.monotonic() - started:.0f} s\n{done.stdout.strip()}")
    print("\n\n".join(told))
    return failed


if __name__ == "__main__":
    sys.exit(main())
