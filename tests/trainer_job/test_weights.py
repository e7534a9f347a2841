"""Weights as a whole: frozen, loaded strictly, and named by a digest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stratified_models.testing import tiny_model
from trainer_job.errors import JobError
from trainer_job.weights import freeze_lower, strict_load, weights_digest


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    with pytest.raises(JobError, match="frozen_blocks=6: the backbone has 6 blocks"):
        freeze_lower(model, 6)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    state = dict(model.state_dict())
    strict_load(model, state, origin="here")
    lost = state.pop("classifier.bias")
    with pytest.raises(JobError, match=r"missing \['classifier\.bias'\]"):
        strict_load(model, state, origin="here")
    with pytest.raises(JobError, match="unexpected"):
        strict_load(model, {**state, "classifier.bias": lost, "extra": lost}, origin="here")


def test_a_digest_sees_the_smallest_change(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, variant="moe")
    before = weights_digest(model)
    assert weights_digest(tiny_model(tmp_path, variant="moe")) == before
    with torch.no_grad():
        bias = model.classifier.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(1.0))
    assert weights_digest(model) != before
