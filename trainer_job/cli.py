"""The command line of `stratified-train`: its commands, their options and their help.

It does not know what a command does; `commands` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trainer_job.errors import ConfigError
from trainer_job.loading import shipped_names

EXIT_CODES = """\
exit codes:
  0   every unit complete, results valid
  2   configuration or command line wrong        3   data or weights unavailable or invalid
  42  training failed for good                   70  some units failed, the others are complete
  75  stopped (SIGTERM, Ctrl-C), all saved       1   anything else
"""


class _Parser(argparse.ArgumentParser):
    """Errors as one line, with the same exit code as a wrong configuration."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(
        prog="stratified-train",
        description="Train and compare the stratified sentiment classifiers.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = _Parser(add_help=False)
    shared.add_argument(
        "--config",
        required=True,
        metavar="FILE|NAME",
        help=f"YAML file, or a shipped configuration: {', '.join(shipped_names())}",
    )
    shared.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override one setting, as in training.epochs=3; may be repeated, and stand before other options",
    )
    plan = commands.add_parser("plan", parents=[shared], help="say what would run; opens no data and no GPU")
    data = commands.add_parser(
        "data", parents=[shared], help="read the data and show what is in them; no model"
    )
    data.add_argument(
        "--samples", type=int, default=2, metavar="N", help="rows shown of each domain and label"
    )
    run = commands.add_parser("run", parents=[shared], help="train what is missing, compare, select, report")
    run.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        help="serve /metrics for Prometheus while it runs, as 0.0.0.0:9464 in a container; default: off",
    )
    run.add_argument(
        "--export",
        choices=["onnx"],
        help="give each finished variant's bundle its ONNX file, for a service without torch",
    )
    for command in (plan, run):
        _add_distribution(command)
    report = commands.add_parser(
        "report", parents=[shared], help="rebuild results.json and the reports from the units; merges shards"
    )
    report.add_argument(
        "--recompute",
        action="store_true",
        help="first compute every figure again from the kept predictions; exit 1 where one differs",
    )
    promote = commands.add_parser("promote", parents=[shared], help="decide yourself what is served")
    promote.add_argument("unit", metavar="VARIANT[:SEED]")
    promote.add_argument("--reason", required=True, help="why; it is recorded")
    _add_export(commands)
    add_inspect(commands)
    commands.add_parser("schema", help="print the JSON Schema of results.json")
    return parser


def _add_distribution(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--strategy",
        choices=["auto", "variant-per-gpu", "ddp"],
        help="a unit on each GPU, or all GPUs on one unit; the same as --set hardware.strategy=…",
    )
    command.add_argument(
        "--shard",
        metavar="I/N",
        help="only unit I, I+N, I+2N … (from 0), beside other jobs on one volume; auto/N in an Indexed Job",
    )


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a bundle in another format, for serving without torch")
    export.add_argument("directory", type=Path, metavar="DIR", help="a bundle, such as results/…/routing")
    export.add_argument("--format", choices=["onnx"], default="onnx", help="default: onnx")
    export.add_argument(
        "--quantize", choices=["int8"], help="also write this precision, and measure its loss"
    )
    export.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=".jsonl, .csv or .tsv with text, label and domain to measure on",
    )
    export.add_argument(
        "--config", metavar="FILE|NAME", help="measure on this configuration's validation split"
    )
    export.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override one setting of --config; may be repeated",
    )
    export.add_argument(
        "--max-loss",
        type=_points,
        default=0.5,
        metavar="POINTS",
        help="accuracy that int8 may lose in any domain, in points of 100; more is refused (default: 0.5)",
    )


def _points(text: str) -> float:
    """Points of 100. Raises argparse's error for what is none: nan would be below no loss and above none."""
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 100; give one, such as 0.5")
    return points


def add_inspect(commands: Any) -> None:
    """The command that looks into a finished model."""
    inspect = commands.add_parser("inspect", help="show what the strata of a finished model are")
    inspect.add_argument("directory", type=Path, metavar="DIR", help="a bundle, such as results/.../moe")
    inspect.add_argument(
        "--data",
        required=True,
        metavar="FILE|NAME",
        help="texts: a .jsonl file with text, label and domain, or a configuration whose data are read",
    )
    inspect.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    inspect.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override one setting where --data is a configuration; may be repeated",
    )
    inspect.add_argument("--tokens", type=int, default=4000, help="tokens to look at; more is slower")
    inspect.add_argument("--text", action="append", default=[], help="show saliency for it; may be repeated")
    inspect.add_argument("--before", action="store_true", help="test the untrained backbone's layers too")
    inspect.add_argument("--out", type=Path, help="folder of inspect.html and .json; DIR/inspect otherwise")
