"""Shared by the job's tests: tiny data and weights, and one sweep of three variants and two seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer_job.tiny import Tiny, make_tiny, train_here
from trainer_job import results
from trainer_job.config import RunConfig
from trainer_job.launch import Devices
from trainer_job.ranks import StopFlag
from trainer_job.report import write_report
from trainer_job.units import Layout, record_identity


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Results must not depend on how many cores the tests find."""
    earlier = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(earlier)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Data and weights, once a session."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


class Swept:
    """A finished sweep: its configuration, layout and record. Tests must not change its files."""

    def __init__(self, config: RunConfig, record: dict[str, Any], yaml: Path) -> None:
        self.config, self.record, self.yaml = config, record, yaml
        self.layout = Layout.of(config)


@pytest.fixture(scope="session")
def swept(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Three variants, two seeds, trained in this process."""
    place = tmp_path_factory.mktemp("swept")
    config = tiny.config(place, "variants=[none, routing, moe]", "seeds=[0, 1]")
    layout = Layout.of(config)
    assert train_here(config, flag=StopFlag(None)) == 0
    record_identity(layout, config)
    devices = Devices("cpu", 1)
    built = results.build(config, layout, status="complete", command=["stratified-train"], devices=devices)
    record = results.write(layout, built)
    write_report(record, layout.results)
    return Swept(config, record, place / "tiny.yaml")
