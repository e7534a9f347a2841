"""Shards train like whole weights, on two ranks over gloo; see shards_on_cpu for what is faked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_sweep_ranks import shape, sweep
from tests.trainer_job import faults
from tests.trainer_job.faults import faulty_sweep
from tests.trainer_job.tiny import Tiny, make_tiny
from trainer_job import commands, launch
from trainer_job.checkpoints import list_checkpoints
from trainer_job.config import VARIANTS, RunConfig
from trainer_job.errors import Preempted
from trainer_job.launch import Devices
from trainer_job.units import Layout, Unit

pytestmark = pytest.mark.slow
chaos = pytest.mark.skipif("CHAOS" not in os.environ, reason="a kill and three runs: in `make chaos`")

SHARDED = ("hardware.processes=2", "hardware.fsdp=true")
GATHERED = "pytorch_model_fsdp.bin"  # what accelerate writes of a model in shards, and of no other
SITE = Path(__file__).parent / "shards_on_cpu"


@pytest.fixture(scope="module", autouse=True)
def _a_cpu_that_shards() -> Any:
    """The job refuses to shard on a CPU; here it may."""
    patch, choose = pytest.MonkeyPatch(), launch.choose_devices

    def without_refusal(config: RunConfig, *arguments: Any, **options: Any) -> Devices:
        hardware = config.hardware.model_copy(update={"fsdp": False, "strategy": "ddp"})
        return choose(config.model_copy(update={"hardware": hardware}), *arguments, **options)

    patch.setattr(commands, "choose_devices", without_refusal)
    patch.setattr(faults, "choose_devices", without_refusal)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")]))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def test_losses_and_predictions_are_those_of_one_process(tiny: Tiny, tmp_path: Path) -> None:
    one = sweep(tiny, tmp_path / "one")
    two = sweep(tiny, tmp_path / "two", *SHARDED, "training.keep_checkpoints=true")
    gathered = [path.parent.parent.parent.name for path in (tmp_path / "two").rglob(GATHERED)]
    assert sorted(gathered) == sorted(VARIANTS)  # or nothing was sharded
    assert shape(one) == shape(two)
    assert [unit["variant"] for unit in two["units"]] == list(VARIANTS)
    for whole, shards in zip(one["units"], two["units"], strict=True):
        assert shards["processes"] == 2
        for a, b in zip(whole["curves"]["train"], shards["curves"]["train"], strict=True):
            assert b["loss"] == pytest.approx(a["loss"], abs=1e-5), (whole["variant"], a["step"])
        assert shards["test"]["n"] == whole["test"]["n"]
        assert shards["test"]["accuracy"] == pytest.approx(whole["test"]["accuracy"], abs=0.03)


@chaos
def test_it_goes_on_inside_an_epoch_with_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    short = ("variants=[routing]", "training.epochs=3", "training.evaluations=1", "training.log_every=1")
    fault = {"kind": "SIGTERM", "at": "training", "step": 20, "rank": 1, "once": str(tmp_path / "once")}
    stopped = tiny.config(tmp_path / "stopped", *short, *SHARDED)
    with pytest.raises(Preempted):
        faulty_sweep(stopped, fault).run()
    [checkpoint] = list_checkpoints(Layout.of(stopped).unit(Unit("routing", 0)))
    assert (checkpoint / GATHERED).is_file()
    whole = tiny.config(tmp_path / "whole", *short, *SHARDED)
    for config in (stopped, whole):
        assert faulty_sweep(config, {"kind": "none", "step": 10**9}).run()
    records = [
        json.loads(Layout.of(config).record.read_text(encoding="utf-8")) for config in (stopped, whole)
    ]
    one, two = (record["units"][0] for record in records)
    assert one["weights_sha256"] == two["weights_sha256"]
    assert one["curves"]["train"] == two["curves"]["train"]
    assert one["test"] == two["test"]
