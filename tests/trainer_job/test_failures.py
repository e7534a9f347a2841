"""Failures: recorded by each rank, the earliest is the cause, the same one twice is final."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from trainer_job.errors import DataError, JobError, TrainingFailed, WeightsError
from trainer_job.failures import (
    Failure,
    Ledger,
    clear_failures,
    of_the_surroundings,
    read_failure,
    write_failure,
)
from trainer_job.units import Unit

UNIT = Unit("moe", 1)


def test_the_earliest_rank_names_the_cause(tmp_path: Path) -> None:
    write_failure(tmp_path, ValueError("the cause"), unit=UNIT, rank=1)
    write_failure(tmp_path, RuntimeError("connection closed by peer"), unit=UNIT, rank=0)
    failure = read_failure(tmp_path)
    assert failure == Failure(UNIT, "ValueError", "the cause", 1)
    clear_failures(tmp_path)
    assert read_failure(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no rows"), 3),
        (WeightsError("no file"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (OSError(errno.EROFS, "Read-only file system"), 1),
    ],
)
def test_failures_of_the_surroundings_belong_to_no_unit(tmp_path: Path, error: Exception, code: int) -> None:
    write_failure(tmp_path, error, unit=UNIT, rank=0)
    failure = read_failure(tmp_path)
    assert failure is not None
    assert failure.unit is None
    assert failure.as_error().exit_code == code
    assert Ledger().is_final(failure)


@pytest.mark.parametrize(
    ("error", "surroundings"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("I/O error: No such file or directory (os error 2)"), False),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (RuntimeError("shapes (28) do not match"), False),
        (OSError(errno.ENOENT, "no such file"), False),
    ],
)
def test_a_full_disk_is_known_however_a_library_says_it(error: Exception, surroundings: bool) -> None:
    assert of_the_surroundings(error) is surroundings


def test_a_failure_comes_back_as_the_error_that_it_was(tmp_path: Path) -> None:
    write_failure(tmp_path, DataError("imdb: no rows"), unit=None, rank=0)
    failure = read_failure(tmp_path)
    assert failure is not None
    error = failure.as_error()
    assert isinstance(error, DataError)
    assert str(error) == "imdb: no rows"
    assert type(Failure(None, "KeyError", "x", 1).as_error()) is JobError


def test_the_same_failure_twice_is_final_whatever_its_numbers() -> None:
    ledger = Ledger()
    assert not ledger.is_final(Failure(UNIT, "TrainingFailed", "not finite at step 12", 42))
    assert ledger.is_final(Failure(UNIT, "TrainingFailed", "not finite at step 14", 42))


def test_different_failures_are_tried_three_times() -> None:
    ledger = Ledger()
    kinds = [Failure(UNIT, kind, "x", 1) for kind in ("A", "B", "C")]
    assert [ledger.is_final(failure) for failure in kinds] == [False, False, True]
    assert not ledger.is_final(Failure(Unit("none", 0), "A", "x", 1))


def test_the_record_holds_the_traceback(tmp_path: Path) -> None:
    try:
        raise TrainingFailed("boom")
    except TrainingFailed as error:
        write_failure(tmp_path, error, unit=UNIT, rank=0)
    record = json.loads((tmp_path / "failure-0.json").read_text())
    assert any("test_failures" in line for line in record["traceback"])
    assert record["exit_code"] == 42


def test_a_failure_that_cannot_be_written_does_not_hide_the_first(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    write_failure(blocked / "state", ValueError("x"), unit=None, rank=0)
