"""A sweep in parts: units beside each other, shards on one volume, and two machines on one unit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job.tiny import Tiny, make_tiny
from trainer_job.__main__ import main

pytestmark = pytest.mark.slow
chaos = pytest.mark.skipif("CHAOS" not in os.environ, reason="several processes: in `make chaos`")

SHORT = ("training.max_steps=6", "training.evaluations=1", "training.test_given_domain=false")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(tiny: Tiny, place: Path, name: str, *settings: str, options: tuple[str, ...] = ()) -> list[str]:
    overrides = [part for item in (*SHORT, *settings) for part in ("--set", item)]
    return [name, "--config", str(tiny.yaml(place)), *overrides, *options]


def weights(place: Path) -> dict[str, str]:
    record = json.loads((place / "results" / "results.json").read_text(encoding="utf-8"))
    assert record["status"] == "complete"
    return {f"{unit['variant']}:{unit['seed']}": unit["weights_sha256"] for unit in record["units"]}


def test_units_beside_each_other_end_as_one_after_the_other(tiny: Tiny, tmp_path: Path) -> None:
    both = ("variants=[none, layers]", "hardware.processes=2")
    assert main(command(tiny, tmp_path / "lanes", "run", *both)) == 0
    assert main(command(tiny, tmp_path / "alone", "run", "variants=[none, layers]")) == 0
    assert weights(tmp_path / "lanes") == weights(tmp_path / "alone")
    record = json.loads((tmp_path / "lanes" / "results" / "results.json").read_text(encoding="utf-8"))
    assert record["run"]["devices"]["text"] == "CPU, 2 units at a time, one process each"


@chaos
def test_shards_on_one_volume_make_one_sweep(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = ("variants=[none, layers]", "seeds=[0, 1]")
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "trainer_job",
                *command(tiny, tmp_path, "run", *units, options=("--shard", shard)),
            ],
            env={**os.environ, "JOB_COMPLETION_INDEX": "1"},
        )
        for shard in ("0/2", "auto/2")
    ]
    assert [job.wait(timeout=280) for job in jobs] == [0, 0]
    assert len(weights(tmp_path)) == 4
    assert list((tmp_path / "results" / ".state" / "leases").iterdir()) == []
    (tmp_path / "results" / "results.json").unlink()
    assert main(command(tiny, tmp_path, "report", *units, options=("--recompute",))) == 0
    assert "recomputed from predictions: 0 figures differ" in capsys.readouterr().out
    assert len(weights(tmp_path)) == 4


@chaos
def test_two_machines_train_one_unit_as_one_does(tiny: Tiny, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    still = ("variants=[none]", "model.dropout=0.0", "model.domain_dropout=0.0")
    nodes = ("hardware.nodes=2", f"hardware.rendezvous=127.0.0.1:{port}", "training.micro_batch_size=8")
    jobs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "trainer_job",
                *command(tiny, tmp_path / "two", "run", *still, *nodes, f"hardware.node_rank={rank}"),
            ]
        )
        for rank in (0, 1)
    ]
    assert [job.wait(timeout=280) for job in jobs] == [0, 0]
    assert main(command(tiny, tmp_path / "one", "run", *still)) == 0
    records: list[Any] = [
        json.loads((tmp_path / name / "results" / "results.json").read_text(encoding="utf-8"))
        for name in ("two", "one")
    ]
    assert records[0]["units"][0]["processes"] == 2
    curves = [[point["loss"] for point in record["units"][0]["curves"]["train"]] for record in records]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
