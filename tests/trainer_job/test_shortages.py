"""Memory ran out: smaller batches for that unit alone, at the same global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer_job.tiny import Tiny
from trainer_job.errors import TrainingFailed
from trainer_job.failures import OUT_OF_MEMORY, Failure, kind_of
from trainer_job.launch import split_batch
from trainer_job.shortages import fitted, read_shortages, shrink
from trainer_job.units import Unit, config_hash

UNIT = Unit("moe", 0)


def failure(step: int = 5) -> Failure:
    return Failure(UNIT, OUT_OF_MEMORY, "out of memory", 1, step, "training")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
    ],
)
def test_every_library_says_it_in_its_own_way(error: BaseException) -> None:
    assert kind_of(error) == OUT_OF_MEMORY


def test_other_errors_keep_their_kind() -> None:
    assert kind_of(RuntimeError("shapes differ")) == "RuntimeError"
    assert kind_of(TrainingFailed("the loss was not finite")) == "TrainingFailed"


def test_batches_are_halved_down_to_one_row_at_the_same_global_batch(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    sizes: list[int] = []
    while (event := shrink(tmp_path, config, failure(len(sizes)), ranks=2)) is not None:
        sizes.append(event["micro_batch_size"]["to"])
        smaller = fitted(config, UNIT, read_shortages(tmp_path))
        micro, steps = split_batch(smaller, 2)
        assert micro * steps * 2 == config.training.batch_size
        assert config_hash(smaller) == config_hash(config)
    assert sizes[:3] == [4, 2, 1]
    assert set(sizes[3:]) == {1}  # only evaluation became smaller still
    events = read_shortages(tmp_path)[UNIT.name]["events"]
    assert [event["step"] for event in events] == list(range(len(sizes)))


def test_a_share_that_does_not_halve_takes_its_next_divisor(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "training.batch_size=15")
    event = shrink(tmp_path, config, failure(), ranks=1)
    assert event is not None
    assert event["micro_batch_size"] == {"from": 15, "to": 5}


def test_other_units_keep_their_batches(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    shrink(tmp_path, config, failure(), ranks=1)
    assert fitted(config, Unit("none", 0), read_shortages(tmp_path)) is config
    assert shrink(tmp_path, config, Failure(None, OUT_OF_MEMORY, "", 1), ranks=1) is None
