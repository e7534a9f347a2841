"""Several machines: who they are, where they meet, and what all but the first do."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer_job.config import HardwareConfig
from trainer_job.errors import ConfigError, JobError, Preempted
from trainer_job.files import read_json
from trainer_job.nodes import ALONE, Nodes, announce, announce_end, find_nodes, follow
from trainer_job.process import StopRequest


def test_one_machine_is_alone() -> None:
    assert find_nodes(HardwareConfig(), {}) == ALONE
    assert find_nodes(HardwareConfig(), {"PET_NNODES": "1"}) == ALONE


def test_nodes_are_configured_or_told_by_the_environment() -> None:
    told = HardwareConfig(nodes=2, node_rank=1, rendezvous="first:29400")
    assert find_nodes(told, {}) == Nodes(2, 1, "first:29400")
    kubeflow = {
        "PET_NNODES": "3",
        "PET_NODE_RANK": "2",
        "PET_MASTER_ADDR": "job-node-0-0.job",
        "PET_MASTER_PORT": "29500",
    }
    assert find_nodes(HardwareConfig(), kubeflow) == Nodes(3, 2, "job-node-0-0.job:29500")
    indexed = {"JOB_COMPLETION_INDEX": "1", "PET_RDZV_ENDPOINT": "first:1"}
    assert find_nodes(HardwareConfig(nodes=2), indexed) == Nodes(2, 1, "first:1")
    assert find_nodes(HardwareConfig(), {**indexed, "PET_NNODES": "2:4"}).count == 4


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"nodes": 2, "node_rank": 0}, "rendezvous=None"),
        ({"nodes": 2, "rendezvous": "a:1"}, "node_rank=None"),
        ({"nodes": 2, "node_rank": 2, "rendezvous": "a:1"}, "count from 0 to 1"),
    ],
)
def test_nodes_that_cannot_meet_are_refused(hardware: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_nodes(HardwareConfig.model_validate(hardware), {})


def test_a_node_joins_each_attempt_once_and_ends_as_the_job_does(tmp_path: Path) -> None:
    joined: list[Path] = []

    def start(order: Path) -> int:
        joined.append(order)
        if len(joined) == 1:
            announce(tmp_path / "worker.json", {"units": []})
        else:
            announce_end(tmp_path, 70)
        return 1

    first = announce(tmp_path / "worker.json", {"units": []})
    assert (read_json(tmp_path / "worker.json") or {}) == {"units": [], "attempt": first}
    assert follow(tmp_path, start=start, stop=StopRequest(), pause=0.001) == 70
    assert joined == [tmp_path / "worker.json"] * 2


def test_the_end_of_an_earlier_job_is_not_ours(tmp_path: Path) -> None:
    announce_end(tmp_path, 0)
    with pytest.raises(JobError, match="no word of the first node"):
        follow(tmp_path, start=lambda order: 0, stop=StopRequest(), patience=0.05, pause=0.01)


def test_a_stopped_node_says_so(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.note(15)
    with pytest.raises(Preempted, match="stopped by SIGTERM"):
        follow(tmp_path, start=lambda order: 0, stop=stop)
