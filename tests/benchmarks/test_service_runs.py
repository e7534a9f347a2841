"""The long benchmarks of the service, for seconds: they still work; what depends on time is not asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import overload, scheduler, soak, stream
from benchmarks.record import processor
from stratified_models.testing import tiny_bundle
from tests.benchmarks.test_runs import record_of


def held(record: dict[str, Any]) -> dict[str, bool]:
    return {rule["rule"]: rule["holds"] for rule in record["rules"]}


def test_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream.main(["--messages", "3000", "--out", str(tmp_path)])
    assert held(record_of(tmp_path, "stream"))["every message is answered"]
    assert "3000 messages in" in capsys.readouterr().out


def test_growth_is_told_from_noise() -> None:
    found = {"answered": 9, "memory": {"server": [None, 100.0, 101.0, 103.0], "client": [50.0, 50.0, 50.5]}}
    assert [holds for _, _, holds in stream.judged(found, 10)] == [False, False, True]


def test_soak(tmp_path: Path) -> None:
    soak.main(["--minutes", "0.15", "--swap-seconds", "4", "--pause", "0.1", "--out", str(tmp_path)])
    rules = held(record_of(tmp_path, "soak"))
    assert rules["callers saw only what they caused"]
    assert rules["started = handled, by code"]
    assert rules["every bundle swapped in"]
    assert rules["drains and exits with 0"]
    record: Any = record_of(tmp_path, "soak")
    assert (record["processor"], record["engine_threads"]) == (processor(), soak.THREADS)
    assert len(record["resident"]) == len(record["threads"]) == len(record["files"]) > 1


def test_what_grows_in_a_soak_is_told() -> None:
    still, rising = [100 * 2**20] * 40, [n * 2**20 for n in range(100, 140)]
    seen = soak.Seen(resident=rising, threads=[16] * 8 + [17] * 32, files=[9] * 39 + [99])
    told = {rule: holds for rule, _, holds in soak.rules(seen, {}, 0.001)}
    assert not told["memory after warm-up grows < 2 %"]
    assert told["no thread left"], "those that are begun in the warm-up stay"
    assert told["no file left open"], "one look does not count"
    leak = soak.Seen(resident=still, threads=list(range(40)), files=list(range(40)))
    told = {rule: holds for rule, _, holds in soak.rules(leak, {}, 0.001)}
    assert told["memory after warm-up grows < 2 %"]
    assert not told["no thread left"]
    assert not told["no file left open"]


def test_overload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(tmp_path / "models" / "none", variant="none", seed=0)
    models = str(tmp_path / "models")
    overload.main(["--models", models, "--seconds", "1", "--out", str(tmp_path)])
    record: Any = record_of(tmp_path, "overload")
    assert held(record)["half of 200 leave: the others are answered"]
    assert [row["share"] for row in record["table"]] == list(overload.SHARES)
    assert (record["pin"], record["threads"], record["processor"]) == (True, 1, processor())
    assert record["versions"]["grpcio"]
    for row in record["table"]:
        assert len(row["samples_ms"]["answered"]) == row["codes"].get("OK", 0)
        assert len(row["samples_ms"]["refused"]) >= row["with_pushback"]
    assert "capacity" in capsys.readouterr().out


def test_scheduler(tmp_path: Path) -> None:
    trace = tmp_path / "arrivals.txt"
    trace.write_text("0.0 12\n0.001 30\n0.5 300\n", encoding="utf-8")
    assert scheduler.main(["--trace", str(trace), "--out", str(tmp_path)]) == 0
    record: Any = record_of(tmp_path, "scheduler")
    assert record["processor"] == processor()
    assert record["versions"]["python"]
    table = record["table"]
    ours = next(row for row in table if row["policy"] == "ours")
    assert (ours["late"], ours["refused"], ours["expired"]) == (0, 0, 0)
    assert (ours["p50_ms"], ours["goodput_per_s"]) == (7.7, 6.0), "the middle one waits for the first"
