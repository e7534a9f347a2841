"""What each command of `stratified-train` does: it calls the module that knows how, and prints.

It does not read the command line. Heavy modules are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError, ResultsMismatch
from trainer_job.launch import (
    Devices,
    check_packages,
    choose_devices,
    visible_gpus,
    worker_command,
    worker_environment,
)
from trainer_job.loading import load_config
from trainer_job.nodes import find_nodes
from trainer_job.shards import Shard, parse_shard
from trainer_job.tracking import check_trackers
from trainer_job.units import Layout, planned_units


def say(text: str) -> None:
    """A line for whoever called."""
    sys.stdout.write(f"{text}\n")


def dispatch(options: argparse.Namespace, line: list[str]) -> int:
    """Do what the command says."""
    if options.command == "schema":
        from trainer_job.results import load_schema

        say(json.dumps(load_schema(), indent=1, ensure_ascii=False))
        return 0
    if options.command in ("export", "inspect"):  # of a finished model: no sweep is configured
        return export(options) if options.command == "export" else inspect(options)
    strategy = getattr(options, "strategy", None)
    settings = [*options.settings, *([f"hardware.strategy={strategy}"] if strategy else [])]
    config = load_config(options.config, settings=settings, environ=os.environ)
    if options.command != "plan":
        check_packages()
    if options.command == "promote":
        return promote(config, options)
    if options.command == "data":
        return data(config, options)
    return sweep(config, options, line)


def data(config: RunConfig, options: argparse.Namespace) -> int:
    """The command of that name."""
    if options.samples < 0:
        raise ConfigError(f"--samples {options.samples}: fewer than none; give 0 or more")
    from trainer_job.data import load_corpus
    from trainer_job.data.describe import print_corpus

    print_corpus(load_corpus(config.data, cache=config.cache), sys.stdout, samples=options.samples)
    return 0


def sweep(config: RunConfig, options: argparse.Namespace, line: list[str]) -> int:
    """`plan`, `run` and `report`, which must know the devices."""
    shard = parse_shard(options.shard, os.environ) if getattr(options, "shard", None) else None
    units = planned_units(config) if shard is None else shard.of(planned_units(config))
    nodes = find_nodes(config.hardware, os.environ)
    devices = choose_devices(config, visible_gpus(os.environ), units=len(units), nodes=nodes)
    if options.command == "plan":
        from trainer_job.plan import make_plan, print_plan

        made = make_plan(config, devices, units=units)
        print_plan(config, made, sys.stdout)
        return ResultsMismatch.exit_code if made.refusal else 0
    if options.command == "report":
        return report(config, devices, recompute=options.recompute)
    check_trackers(config.report_to)
    if nodes.rank > 0:
        return follow_first_node(config, devices)
    return run(config, devices, options, line, shard)


def follow_first_node(config: RunConfig, devices: Devices) -> int:
    """`run` on every node but the first."""
    from trainer_job.nodes import follow
    from trainer_job.process import StopRequest, run_worker

    def start(order: Path) -> int:
        return run_worker(
            worker_command(devices, order),
            environment=worker_environment(devices, config, os.environ),
            lock=None,
            stop=stop,
            grace_seconds=config.hardware.grace_seconds,
            on_tick=lambda: None,
        )

    with StopRequest().listening() as stop:
        return follow(Layout.of(config).state, start=start, stop=stop)


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
        say(str(path))
    return 0


def promote(config: RunConfig, options: argparse.Namespace) -> int:
    """The command of that name."""
    from trainer_job.promote import promote as decide
    from trainer_job.report import write_report

    record = decide(config, options.unit, reason=options.reason)
    write_report(record, Layout.of(config).results)
    selected = record["selected"]
    say(f"serving {selected['variant']}:{selected['seed']} from now on: {selected['reason']}")
    return 0


def export(options: argparse.Namespace) -> int:
    """The command of that name."""
    from trainer_job.export import export_bundle, find_rows, print_exports

    config = None
    if options.settings and options.config is None:
        raise ConfigError(
            f"--set {options.settings[0]}: there is no --config to override; give one, or no --set"
        )
    if options.config is not None:
        config = load_config(options.config, settings=options.settings, environ=os.environ)
    rows = find_rows(options.directory, data=options.data, config=config, needed=options.quantize is not None)
    written = export_bundle(
        options.directory,
        quantize=options.quantize,
        rows=rows,
        max_loss=options.max_loss,
        announce=say,
    )
    print_exports(written, sys.stdout)
    return 0


def report(config: RunConfig, devices: Devices, *, recompute: bool = False) -> int:
    """The command of that name."""
    from trainer_job import results
    from trainer_job.files import read_json
    from trainer_job.folder import check_folder
    from trainer_job.recompute import recomputed, summary_differences
    from trainer_job.report import write_report
    from trainer_job.results import settled_status
    from trainer_job.tables import print_comparison

    layout = Layout.of(config)
    earlier = read_json(layout.record) or {}
    if not (layout.state / "data.json").is_file():
        raise ConfigError(f"{layout.results}: no sweep there; run `stratified-train run` first")
    check_folder(layout, config)
    status = settled_status(config, layout, earlier=earlier.get("status"))
    command = (earlier.get("run") or {}).get("command", [])
    build = partial(results.build, config, layout, status=status, command=command, devices=devices)
    differences = []
    if recompute:
        again = recomputed(layout, config)
        differences = again.differences + summary_differences(earlier, build(records=again.records))
    record = results.write(layout, build())
    for path in write_report(record, layout.results):
        say(str(path))
    print_comparison(record, sys.stdout)
    if recompute:
        for text in differences[:50]:
            say(f"differs: {text}")
        say(f"recomputed from predictions: {len(differences)} figures differ from what was recorded")
    return 1 if differences else 0


def run(
    config: RunConfig, devices: Devices, options: argparse.Namespace, line: list[str], shard: Shard | None
) -> int:
    """The command of that name."""
    from trainer_job import handover, results, telemetry
    from trainer_job.process import StopRequest
    from trainer_job.report import write_report
    from trainer_job.sweep import Sweep
    from trainer_job.tables import print_comparison

    layout = Layout.of(config)
    command = ["stratified-train", *line]
    collector = telemetry.SweepCollector(layout, planned_units(config), devices)

    def record(status: str) -> dict[str, Any]:
        built = results.build(config, layout, status=status, command=command, devices=devices)
        written = results.write(layout, built)
        telemetry.write_record(collector)
        if status != "running":
            write_report(written, layout.results)
        return written

    with telemetry.exposed(collector, options.metrics), StopRequest().listening() as stop:
        sweep = Sweep(
            config=config,
            layout=layout,
            devices=devices,
            environ=os.environ,
            record=record,
            stop=stop,
            shard=shard,
        )
        worked = sweep.run()
        if options.export:
            handover.export_missing(
                layout,
                sweep.last,
                environ=os.environ,
                stop=stop,
                grace_seconds=config.hardware.grace_seconds,
                shared=shard is not None,
            )
    print_comparison(sweep.last, sys.stdout)
    if not worked:
        say(f"everything complete: {len(sweep.units)} units in {layout.results}, nothing to train")
    say(f"report: {layout.results / 'report.html'}")
    return 0
