"""The job in Prometheus' words: /metrics while it runs, the same figures as `metrics.prom` in the results.

Everything is read from the results folder at each scrape (statuses, standings, records), so the supervisor
tells of units that other processes train, and needs no torch. A Job ends, and its page with it: what it said
last stays in the file, for a textfile collector. It does not know how anything is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trainer_job.errors import ConfigError
from trainer_job.files import read_json, write_text
from trainer_job.launch import Devices
from trainer_job.units import Layout, State, Unit, read_status

PREFIX = "stratified_train_"
RECORD = "metrics.prom"
STANDING = "standing.json"  # of a unit, see trainer_job.standing
UNIT = ("variant", "seed")
# Name, key of the standing, help: while a unit is running.
GAUGES = (
    ("step", "step", "Optimizer steps done of the running unit."),
    ("planned_steps", "planned_steps", "Optimizer steps that the running unit will take."),
    ("epoch", "epoch", "Passes over the training rows, with fractions."),
    ("loss", "loss", "Training loss, mean since it was last logged."),
    ("learning_rate", "learning_rate", "Learning rate of the backbone's parameters."),
    ("gradient_norm", "grad_norm", "Norm of the gradients before clipping."),
    ("last_step_timestamp_seconds", "last_step", "When a step of training or evaluation ended last."),
    (
        "last_checkpoint_timestamp_seconds",
        "last_checkpoint",
        "When a checkpoint was complete last; before the first, when this process began to train.",
    ),
    ("last_evaluation_timestamp_seconds", "last_evaluation", "When an evaluation ended last."),
    ("device_memory_bytes", "device_memory_bytes", "Peak of the GPU's allocator on the first process."),
)
# Name, key of the standing, label, help: they start anew when a process does.
COUNTERS = (
    ("tokens", "tokens", "kind", "Tokens that the first process trained on, real and padding."),
    ("phase_seconds", "seconds", "phase", "Seconds of the first process, by what it did."),
)
AGES = ("last_step", "last_checkpoint")
SCORES = ("accuracy", "macro_f1")


class SweepCollector(Collector):
    """Reads the results folder at each scrape."""

    def __init__(
        self,
        layout: Layout,
        units: Iterable[Unit],
        devices: Devices,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.layout, self.units, self.devices = layout, list(units), devices
        self.started = clock()

    def collect(self) -> Iterator[Metric]:
        """All families, units in the sweep's order."""
        states = {unit: str(read_status(self.layout.unit(unit))["state"]) for unit in self.units}
        yield from self._sweep(states)
        running = [unit for unit in self.units if states[unit] == "running"]
        standings = {unit: self._standing(unit) for unit in running}
        yield from _running(standings)
        complete = [unit for unit in self.units if states[unit] == "complete"]
        records = {unit: read_json(self.layout.unit(unit) / "unit.json") or {} for unit in complete}
        yield from _finished(records)

    def _standing(self, unit: Unit) -> dict[str, Any]:
        """What a training process wrote last; ages count from our own start, not from a former life."""
        found = read_json(self.layout.unit(unit) / STANDING) or {}
        ages = {name: max(found[name], self.started) for name in AGES if found.get(name) is not None}
        return {**found, **ages}

    def _sweep(self, states: Mapping[Unit, str]) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            f"{PREFIX}info", "Always 1; the labels say what runs.", labels=("version", "devices", "processes")
        )
        version = metadata.version("stratified-sentiment")
        info.add_metric((version, self.devices.kind, str(self.devices.processes)), 1)
        yield info
        yield GaugeMetricFamily(
            f"{PREFIX}start_timestamp_seconds", "When this process began.", value=self.started
        )
        units = GaugeMetricFamily(f"{PREFIX}units", "Units of the sweep, by state.", labels=("state",))
        for state in get_args(State):
            units.add_metric((state,), sum(found == state for found in states.values()))
        yield units
        selected = GaugeMetricFamily(
            f"{PREFIX}selected", "Always 1; the labels say which unit is to be served.", labels=UNIT
        )
        chosen = (read_json(self.layout.record) or {}).get("selected")
        if chosen:
            selected.add_metric((chosen["variant"], str(chosen["seed"])), 1)
        yield selected


def _running(standings: Mapping[Unit, Mapping[str, Any]]) -> Iterator[Metric]:
    for name, key, text in GAUGES:
        yield _gauge(name, text, {unit: standing.get(key) for unit, standing in standings.items()})
    for name, key, label, text in COUNTERS:
        counter = CounterMetricFamily(PREFIX + name, text, labels=(*UNIT, label))
        for unit, standing in standings.items():
            for kind, value in standing.get(key, {}).items():
                counter.add_metric((*_labels(unit), kind), value)
        yield counter
    validation = {unit: standing.get("validation", {}) for unit, standing in standings.items()}
    for name in SCORES:
        values = {unit: found.get(name) for unit, found in validation.items()}
        yield _gauge(f"validation_{name}", "Of the last evaluation, over all domains.", values)
    domains = GaugeMetricFamily(
        f"{PREFIX}validation_domain_macro_f1", "Of the last evaluation, by domain.", labels=(*UNIT, "domain")
    )
    for unit, found in validation.items():
        for domain, value in found.get("per_domain", {}).items():
            if value is not None:
                domains.add_metric((*_labels(unit), domain), value)
    yield domains


def _finished(records: Mapping[Unit, Mapping[str, Any]]) -> Iterator[Metric]:
    for name in SCORES:
        values = {unit: record.get("test", {}).get(name) for unit, record in records.items()}
        yield _gauge(f"test_{name}", "Of a finished unit, over all domains.", values)
    spent = {unit: record.get("seconds", {}).get("total") for unit, record in records.items()}
    yield _gauge("unit_seconds", "Time that a finished unit took.", spent)


def _gauge(name: str, text: str, values: Mapping[Unit, float | None]) -> GaugeMetricFamily:
    """One gauge by unit; units without a value are left out."""
    gauge = GaugeMetricFamily(PREFIX + name, text, labels=UNIT)
    for unit, value in values.items():
        if value is not None:
            gauge.add_metric(_labels(unit), value)
    return gauge


def _labels(unit: Unit) -> tuple[str, str]:
    return unit.variant, str(unit.seed)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `PORT` (on loopback), `HOST:PORT` or `[ADDRESS]:PORT`. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535 or (":" in host and not host.startswith("[")):
        raise ConfigError(
            f"--metrics {text!r}: not PORT or HOST:PORT; write 9464, or 0.0.0.0:9464 in a container"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def build_registry(collector: SweepCollector) -> CollectorRegistry:
    """A registry of its own with the sweep and this process's memory."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def exposed(collector: SweepCollector, address: str | None) -> Iterator[int]:
    """Serve /metrics inside the block; yields the port (0: none was asked for). Raises ConfigError."""
    if address is None:
        yield 0
        return
    host, port = parse_address(address)
    try:
        server, thread = start_http_server(port, addr=host, registry=build_registry(collector))
    except OSError as error:
        raise ConfigError(f"--metrics {address}: {error.strerror or error}; name another address") from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_record(collector: SweepCollector) -> None:
    """Write the same figures as `metrics.prom` beside results.json, without those of this process."""
    registry = CollectorRegistry()
    registry.register(collector)
    write_text(collector.layout.results / RECORD, generate_latest(registry).decode())
