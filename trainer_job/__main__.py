"""`stratified-train`: plan, data, run, report, promote, inspect, export, schema; see `cli` and `commands`.

Here errors become one line and an exit code, which are those of `trainer_job.errors`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trainer_job import logs
from trainer_job.cli import build_parser
from trainer_job.commands import dispatch
from trainer_job.errors import JobError

__all__ = ["build_parser", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = build_parser().parse_args(line)
        logs.configure()
        return dispatch(options, line)
    except JobError as error:
        return fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the flush at exit
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return fail(f"{place}{error.strerror or error}; the job needs room and write access there", 1)


def fail(message: str, code: int) -> int:
    """One line on stderr, and where Kubernetes shows it; returns the code."""
    print(f"stratified-train: {message}", file=sys.stderr)
    with suppress(OSError):
        place = Path("/dev/termination-log")
        if place.exists():
            place.write_text(f"{message} (exit {code})\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
