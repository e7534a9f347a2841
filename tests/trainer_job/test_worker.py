"""The worker: it writes down why it ended, and its code says so too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_job.tiny import Tiny, order, train_here
from trainer_job import unit_run
from trainer_job.failures import read_failure
from trainer_job.ranks import StopFlag
from trainer_job.training import UnitTrainer
from trainer_job.units import Layout, Unit, is_complete, read_status
from trainer_job.worker import connect, work


def test_data_that_cannot_be_read_are_a_failure_of_the_job(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "variants=[none]", "data.domains.films.text=body")
    assert train_here(config, flag=StopFlag(None)) == 3
    failure = read_failure(Layout.of(config).state)
    assert failure is not None
    assert failure.unit is None
    assert "body" in failure.message


@pytest.mark.parametrize(
    ("setting", "message"),
    [("model.backbone=/no/such/folder", "/no/such/folder"), ("model.max_length=4000", "max_length")],
)
def test_weights_that_do_not_fit_are_a_failure_of_the_job(
    tiny: Tiny, tmp_path: Path, setting: str, message: str
) -> None:
    config = tiny.config(tmp_path, "variants=[none]", setting)
    assert train_here(config, flag=StopFlag(None)) == 3
    failure = read_failure(Layout.of(config).state)
    assert failure is not None
    assert failure.unit is None
    assert message in failure.message


def test_other_data_in_a_folder_with_finished_units_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "variants=[none]", "training.max_steps=1")
    assert train_here(config, flag=StopFlag(None)) == 0
    path = Layout.of(config).state / "data.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "fingerprint": "another"}))
    assert train_here(config, flag=StopFlag(None)) == 2
    failure = read_failure(Layout.of(config).state)
    assert failure is not None
    assert failure.kind == "ResultsMismatch"


def test_another_backbone_stops_the_sweep(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "variants=[none]", "training.max_steps=1")
    state = Layout.of(config).state
    state.mkdir(parents=True)
    (state / "backbone.json").write_text(json.dumps({"sha256": "f" * 64}))
    assert train_here(config, flag=StopFlag(None)) == 3
    failure = read_failure(state)
    assert failure is not None
    assert "every arm starts from the same weights" in failure.message


class Poisoned(UnitTrainer):
    """Gives a loss that is not a number at the third step."""

    def training_step(self, *arguments: Any, **more: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **more)
        if self.state.global_step == 2:
            self.watch.fill_(1.0)
        return loss


def test_a_nan_loss_fails_the_unit_and_saves_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_run, "UnitTrainer", Poisoned)
    config = tiny.config(tmp_path, "variants=[none, moe]")
    assert train_here(config, flag=StopFlag(None)) == 42
    failure = read_failure(Layout.of(config).state)
    assert failure is not None
    assert failure.unit == Unit("none", 0)
    assert "not finite at step 3" in failure.message
    assert not list(Layout.of(config).unit(Unit("none", 0)).glob("checkpoint-*"))


def test_a_stop_before_a_unit_starts_it_not(tiny: Tiny, tmp_path: Path) -> None:
    class Raised(StopFlag):
        def raised(self) -> bool:
            return True

    config = tiny.config(tmp_path, "variants=[none]")
    assert train_here(config, flag=Raised(None)) == 75
    assert read_status(Layout.of(config).unit(Unit("none", 0))) == {"state": "pending"}


def test_accumulated_micro_batches_and_early_stopping_train_too(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(
        tmp_path,
        "variants=[layers]",
        "training.micro_batch_size=4",
        "training.early_stopping_patience=1",
        "training.max_steps=12",
        "training.evaluations=6",
        "training.learning_rate=1.0e-7",
        "training.frozen_blocks=2",
        "training.activation_checkpointing=true",
    )
    assert train_here(config, flag=StopFlag(None)) == 0
    record = json.loads((Layout.of(config).unit(Unit("layers", 0)) / "unit.json").read_text())
    assert record["steps"] < record["planned_steps"]
    assert is_complete(Layout.of(config).unit(Unit("layers", 0)), record["identity"])


def test_an_order_that_is_no_configuration_is_a_failure(tmp_path: Path) -> None:
    assert work({"config": {}}, state=tmp_path, rank=0, flag=StopFlag(None)) == 1
    failure = read_failure(tmp_path)
    assert failure is not None
    assert failure.kind == "ValidationError"


@pytest.fixture
def _deterministic_again() -> Iterator[None]:
    earlier = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(earlier)


@pytest.mark.usefixtures("_deterministic_again")
def test_on_a_cpu_cores_are_shared_and_sums_have_a_fixed_order(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    connect(order(tiny.config(tmp_path)))
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
