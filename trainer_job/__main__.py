"""`stratified-train`: plan, data, run, report, promote, schema. Exit codes are those of `trainer_job.errors`.

It reads the command line and the environment, and prints; what a command does lives elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer_job import logs
from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError, JobError
from trainer_job.launch import Devices, check_packages, choose_devices, visible_gpus
from trainer_job.loading import load_config, shipped_names

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
    commands.add_parser("plan", parents=[shared], help="say what would run; opens no data and no GPU")
    data = commands.add_parser(
        "data", parents=[shared], help="read the data and show what is in them; no model"
    )
    data.add_argument(
        "--samples", type=int, default=2, metavar="N", help="rows shown of each domain and label"
    )
    commands.add_parser("run", parents=[shared], help="train what is missing, compare, select, report")
    commands.add_parser(
        "report", parents=[shared], help="rebuild results.json and the reports from the units"
    )
    promote = commands.add_parser("promote", parents=[shared], help="decide yourself what is served")
    promote.add_argument("unit", metavar="VARIANT[:SEED]")
    promote.add_argument("--reason", required=True, help="why; it is recorded")
    _add_export(commands)
    add_inspect(commands)
    commands.add_parser("schema", help="print the JSON Schema of results.json")
    return parser


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
    export.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    export.add_argument(
        "--max-loss",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="accuracy that int8 may lose in any domain, in points of 100; more is refused (default: 0.5)",
    )


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
    inspect.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    inspect.add_argument("--tokens", type=int, default=4000, help="tokens to look at; more is slower")
    inspect.add_argument("--text", action="append", default=[], help="show saliency for it; may be repeated")
    inspect.add_argument("--before", action="store_true", help="test the untrained backbone's layers too")
    inspect.add_argument("--out", type=Path, help="folder of inspect.html and .json; DIR/inspect otherwise")


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


def dispatch(options: argparse.Namespace, line: list[str]) -> int:
    """Do what the command says."""
    if options.command == "schema":
        from trainer_job.results import load_schema

        print(json.dumps(load_schema(), indent=1, ensure_ascii=False))
        return 0
    if options.command in ("export", "inspect"):  # of a finished model: no sweep is configured
        return export(options) if options.command == "export" else inspect(options)
    config = load_config(options.config, settings=options.settings, environ=os.environ)
    if options.command != "plan":
        check_packages()
    if options.command == "promote":
        return promote(config, options)
    if options.command == "data":
        from trainer_job.data import load_corpus
        from trainer_job.data.describe import print_corpus

        print_corpus(load_corpus(config.data, cache=config.cache), sys.stdout, samples=options.samples)
        return 0
    devices = choose_devices(config, visible_gpus(os.environ))
    if options.command == "plan":
        from trainer_job.plan import make_plan, print_plan

        print_plan(config, make_plan(config, devices), sys.stdout)
        return 0
    return run(config, devices, line) if options.command == "run" else report(config, devices)


def inspect(options: argparse.Namespace) -> int:
    """The command of that name."""
    from trainer_job.inspection import command

    if options.tokens < 1:
        raise ConfigError(f"--tokens {options.tokens}: nothing to look at; give 1000 or more")
    order = command.Inspection(
        directory=options.directory,
        data=options.data,
        split=options.split,
        tokens=options.tokens,
        texts=tuple(options.text),
        before=options.before,
    )
    record = command.inspect(order, options.settings, os.environ)
    for path in command.write(record, options.out or options.directory / "inspect"):
        print(path)
    return 0


def promote(config: RunConfig, options: argparse.Namespace) -> int:
    """The command of that name."""
    from trainer_job.promote import promote as decide
    from trainer_job.report import write_report
    from trainer_job.units import Layout

    record = decide(config, options.unit, reason=options.reason)
    write_report(record, Layout.of(config).results)
    selected = record["selected"]
    print(f"serving {selected['variant']}:{selected['seed']} from now on: {selected['reason']}")
    return 0


def export(options: argparse.Namespace) -> int:
    """The command of that name."""
    from trainer_job.export import export_bundle, find_rows, print_exports

    config = None
    if options.config is not None:
        config = load_config(options.config, settings=options.settings, environ=os.environ)
    rows = find_rows(options.directory, data=options.data, config=config, needed=options.quantize is not None)
    written = export_bundle(
        options.directory, quantize=options.quantize, rows=rows, max_loss=options.max_loss
    )
    print_exports(written, sys.stdout)
    return 0


def report(config: RunConfig, devices: Devices) -> int:
    """The command of that name."""
    from trainer_job import results
    from trainer_job.files import read_json
    from trainer_job.report import write_report
    from trainer_job.tables import print_comparison
    from trainer_job.units import Layout

    layout = Layout.of(config)
    earlier = read_json(layout.record) or {}
    if not (layout.state / "data.json").is_file():
        raise ConfigError(f"{layout.results}: no sweep there; run `stratified-train run` first")
    status = earlier.get("status", "partial")
    command = (earlier.get("run") or {}).get("command", [])
    built = results.build(config, layout, status=status, command=command, devices=devices)
    record = results.write(layout, built)
    for path in write_report(record, layout.results):
        print(path)
    print_comparison(record, sys.stdout)
    return 0


def run(config: RunConfig, devices: Devices, line: list[str]) -> int:
    """The command of that name."""
    from trainer_job import results
    from trainer_job.process import StopRequest
    from trainer_job.report import write_report
    from trainer_job.sweep import Sweep
    from trainer_job.tables import print_comparison
    from trainer_job.units import Layout

    layout = Layout.of(config)
    command = ["stratified-train", *line]

    def record(status: str) -> dict[str, Any]:
        built = results.build(config, layout, status=status, command=command, devices=devices)
        written = results.write(layout, built)
        if status != "running":
            write_report(written, layout.results)
        return written

    with StopRequest().listening() as stop:
        sweep = Sweep(
            config=config, layout=layout, devices=devices, environ=os.environ, record=record, stop=stop
        )
        worked = sweep.run()
    print_comparison(sweep.last, sys.stdout)
    if not worked:
        print(f"everything complete: {len(sweep.units)} units in {layout.results}, nothing to train")
    print(f"report: {layout.results / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
