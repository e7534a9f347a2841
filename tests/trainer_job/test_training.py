"""What the Trainer is told: row order, steps, optimizer groups, rows by id, and what it must not do in
silence.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.training_args import ParallelMode

from stratified_models.testing import tiny_model
from tests.trainer_job.tiny import Tiny
from trainer_job.batches import GlobalBatches
from trainer_job.errors import JobError
from trainer_job.meter import Meter
from trainer_job.training import UnitTrainer, build_arguments, check_rows
from trainer_job.weights import freeze_lower


class Rows(list[dict[str, Any]]):
    """A data set as the trainer wants it: rows by number, a column by name."""

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "tf32"])
def test_a_precision_reaches_the_trainers_arguments_and_no_other(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Half of them need a GPU to be made in earnest."""
    told: dict[str, Any] = {}

    def arguments(**given: Any) -> SimpleNamespace:
        told.update(given)
        return SimpleNamespace(parallel_mode=ParallelMode.NOT_DISTRIBUTED, n_gpu=1)

    monkeypatch.setattr("trainer_job.training.TrainingArguments", arguments)
    config = tiny.config(tmp_path, f"hardware.precision={precision}")
    build_arguments(config, folder=tmp_path, seed=0, processes=1, device="cuda", total_steps=1)
    assert {name for name in ("bf16", "fp16", "tf32") if told[name]} == {precision} - {"fp32"}
    assert told["use_cpu"] is False


def model_of(trainer: UnitTrainer) -> Any:
    """The trainer's model; the base class says that there may be none."""
    return trainer.model


@pytest.fixture
def make(tiny: Tiny, tmp_path: Path) -> Callable[..., UnitTrainer]:
    def build(variant: str = "none", *settings: str) -> UnitTrainer:
        config = tiny.config(tmp_path, *settings)
        model = tiny_model(tmp_path / "backbone", variant=variant)
        freeze_lower(model, config.training.frozen_blocks)
        rows = Rows(
            {"input_ids": [2, 5, 6, 3], "length": 4, "labels": 0, "domain_id": 0, "row_id": n}
            for n in range(40)
        )
        return UnitTrainer(
            config=config,
            model=model,
            arguments=build_arguments(
                config, folder=tmp_path / "unit", seed=0, processes=1, device="cpu", total_steps=4
            ),
            train_rows=rows,
            batches=GlobalBatches(rows["length"], batch_size=config.training.batch_size, seed=0),
            validation_rows=rows,
            collator=lambda batch: {},
            compute_metrics=None,
            watch=torch.zeros(()),
            callbacks=[],
        )

    return build


@pytest.mark.parametrize("variant", ["none", "moe"])
def test_every_parameter_is_in_one_group_with_its_multiplier(
    make: Callable[..., UnitTrainer], variant: str
) -> None:
    trainer = make(variant)
    optimizer = trainer.create_optimizer()
    names = {id(value): name for name, value in model_of(trainer).named_parameters()}
    rates: dict[str, tuple[float, float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in rates
            rates[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert rates.keys() == set(names.values())
    base = trainer.config.training.learning_rate
    for kind, parts in model_of(trainer).parameter_multiplier_groups().items():
        factor = {"backbone": 1, "new": 10, "geometry": 20}[kind]
        for name in parts:
            assert rates[name][0] == pytest.approx(base * factor), name
            if kind == "geometry" or name.endswith("bias") or "norm" in name.lower():
                assert rates[name][1] == 0, name


def test_frozen_blocks_are_in_no_group(make: Callable[..., UnitTrainer]) -> None:
    trainer = make("routing", "training.frozen_blocks=2")
    optimizer = trainer.create_optimizer()
    trained = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    frozen = [name for name, value in model_of(trainer).named_parameters() if not value.requires_grad]
    assert trained + sum(model_of(trainer).get_parameter(name).numel() for name in frozen) == sum(
        value.numel() for value in model_of(trainer).parameters()
    )
    assert any("embeddings" in name for name in frozen)
    assert {name.split("layer.")[1][0] for name in frozen if "layer." in name} == {"0", "1"}


def test_groups_that_miss_a_parameter_are_refused(make: Callable[..., UnitTrainer]) -> None:
    trainer = make()
    groups = model_of(trainer).parameter_multiplier_groups()
    lost = groups["backbone"].pop()
    object.__setattr__(model_of(trainer), "parameter_multiplier_groups", lambda: groups)
    with pytest.raises(JobError, match=lost.replace(".", r"\.")):
        trainer.create_optimizer()


def test_the_trainer_leaves_the_loss_alone_and_shows_nan(make: Callable[..., UnitTrainer]) -> None:
    trainer = make()
    assert trainer.model_accepts_loss_kwargs is False  # else the loss would grow with the number of processes
    assert trainer.args.logging_nan_inf_filter is False
    assert trainer.args.ddp_find_unused_parameters is False
    assert trainer.args.ddp_broadcast_buffers is False
    assert trainer.args.label_names == ["labels", "domain_id", "row_id"]


def test_data_parallel_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="only DDP through torchrun"):
        build_arguments(
            tiny.config(tmp_path), folder=tmp_path, seed=0, processes=2, device="cpu", total_steps=1
        )


def test_precision_follows_the_configuration(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "hardware.precision=bf16")
    arguments = build_arguments(config, folder=tmp_path, seed=0, processes=1, device="cpu", total_steps=1)
    assert arguments.bf16
    assert not arguments.fp16


@pytest.mark.parametrize(("rows", "expected"), [([0, 1, 1], 3), ([0, 1], 3), ([0, 1, 2, 3], 3)])
def test_rows_that_are_lost_or_doubled_are_seen(rows: list[int], expected: int) -> None:
    with pytest.raises(JobError, match="each row must come once"):
        check_rows(np.asarray(rows), expected)


def test_throughput_is_unknown_before_a_step(make: Callable[..., UnitTrainer]) -> None:
    trainer = make()
    assert set(trainer.throughput().values()) == {None}
    trainer.meter = Meter(real_tokens=50, padded_tokens=100, rows=10, seconds={"train": 2.0})
    assert trainer.throughput() == {
        "tokens_per_second": 25.0,
        "padded_tokens_per_second": 50.0,
        "rows_per_second": 5.0,
        "padding_share": 0.5,
    }
