"""Devices and processes: torchrun when there is more than one, never two GPUs for one process."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.trainer_job.tiny import Tiny
from trainer_job.errors import ConfigError
from trainer_job.launch import (
    Devices,
    check_packages,
    choose_devices,
    split_batch,
    visible_gpus,
    worker_command,
    worker_environment,
)
from trainer_job.nodes import Nodes


def fake_smi(folder: Path, text: str, code: int = 0) -> dict[str, str]:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:/bin:/usr/bin"}


def test_gpus_are_counted_by_the_drivers_tool(tmp_path: Path) -> None:
    assert visible_gpus(fake_smi(tmp_path, "0\\n1\\n")) == ("0", "1")
    assert visible_gpus(fake_smi(tmp_path, "No devices were found\\n")) == ()
    assert visible_gpus(fake_smi(tmp_path, "0\\n", code=9)) == ()
    assert visible_gpus({"PATH": "/nowhere"}) == ()


def test_a_given_choice_of_gpus_is_kept(tmp_path: Path) -> None:
    environ = fake_smi(tmp_path, "0\\n1\\n2\\n")
    assert visible_gpus({**environ, "CUDA_VISIBLE_DEVICES": "2, 0"}) == ("2", "0")
    assert visible_gpus({**environ, "CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({**environ, "CUDA_VISIBLE_DEVICES": "-1"}) == ()


def test_auto_takes_every_gpu_that_shares_the_batch_evenly(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "hardware.device=auto")
    alone = choose_devices(config, ())
    assert (alone.kind, alone.processes, alone.lanes) == ("cpu", 1, 1)
    both = choose_devices(config, ("0", "1"), units=1)
    assert (both.kind, both.processes, both.gpus) == ("cuda", 2, ("0", "1"))
    assert choose_devices(config, ("0", "1", "2"), units=1).processes == 2  # 16 rows do not divide by 3


@pytest.mark.parametrize(
    ("settings", "units", "processes", "lanes", "reason"),
    [
        ([], 4, 1, 2, "variant-per-gpu: 4 unit(s), 2 process(es)"),
        ([], 2, 1, 2, "variant-per-gpu"),
        ([], 1, 2, 1, "ddp: 1 unit(s), 2 process(es)"),
        (["hardware.strategy=ddp"], 4, 2, 1, "ddp: as configured"),
        (["hardware.strategy=variant-per-gpu"], 1, 1, 2, "variant-per-gpu: as configured"),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_strategy_follows_the_units_and_says_why(
    tiny: Tiny,
    tmp_path: Path,
    device: str,
    settings: list[str],
    units: int,
    processes: int,
    lanes: int,
    reason: str,
) -> None:
    config = tiny.config(tmp_path, f"hardware.device={device}", "hardware.processes=2", *settings)
    found = choose_devices(config, ("0", "1"), units=units)
    assert (found.processes, found.lanes) == (processes, lanes)
    assert found.reason.startswith(reason)


def test_sharded_weights_need_gpus_and_all_of_them_together(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "hardware.fsdp=true", "hardware.device=auto")
    found = choose_devices(config, ("0", "1"), units=4)
    assert (found.processes, found.lanes) == (2, 1)
    assert found.reason.startswith("ddp: hardware.fsdp")
    with pytest.raises(ConfigError, match="a CPU shards nothing"):
        choose_devices(config, ())


def test_each_lane_sees_a_gpu_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    devices = Devices("cuda", 1, ("4", "7"), lanes=2)
    seen = [
        worker_environment(devices, tiny.config(tmp_path), {}, lane=lane)["CUDA_VISIBLE_DEVICES"]
        for lane in (0, 1)
    ]
    assert seen == ["4", "7"]
    assert "2 units at a time" in devices.describe()


def test_nodes_meet_where_they_are_told(tmp_path: Path) -> None:
    order = tmp_path / "worker.json"
    order.write_text('{"attempt": "abc"}')
    nodes = Nodes(2, 1, "first:29400")
    command = worker_command(Devices("cuda", 4, tuple("0123"), nodes=nodes), order)
    text = " ".join(command)
    assert (
        "--nproc-per-node 4 --nnodes 2 --rdzv-backend c10d --rdzv-endpoint first:29400 --rdzv-id abc" in text
    )
    assert "is_host=0" in text
    assert "on each of 2 nodes" in Devices("cuda", 4, nodes=nodes).describe()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["hardware.device=cuda"], "no GPU is visible"),
        (["hardware.precision=tf32"], "a CPU trains in fp32 or bf16"),
        (["hardware.precision=fp16"], "a CPU trains in fp32 or bf16"),
        (
            ["hardware.processes=3", "hardware.strategy=ddp"],
            "16 does not divide by 3 processes; set a multiple of 3",
        ),
        (
            ["hardware.processes=2", "hardware.strategy=ddp", "training.micro_batch_size=3"],
            "does not divide the 8 rows",
        ),
    ],
)
def test_what_cannot_work_is_refused(tiny: Tiny, tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_devices(tiny.config(tmp_path, *settings), ())


def test_more_processes_than_gpus_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "hardware.device=cuda", "hardware.processes=2")
    with pytest.raises(ConfigError, match=r"set hardware\.processes ≤ 1"):
        choose_devices(config, ("0",))


def test_the_global_batch_is_split_and_accumulated(tiny: Tiny, tmp_path: Path) -> None:
    assert split_batch(tiny.config(tmp_path), 1) == (16, 1)
    assert split_batch(tiny.config(tmp_path), 4) == (4, 1)
    micro = tiny.config(tmp_path, "training.micro_batch_size=2")
    assert split_batch(micro, 2) == (2, 4)
    assert split_batch(tiny.config(tmp_path, "training.micro_batch_size=99"), 2) == (8, 1)


def test_several_processes_always_go_through_torchrun() -> None:
    one = worker_command(Devices("cpu", 1), Path("w.json"))
    assert one == [sys.executable, "-m", "trainer_job.worker", "--config-file", "w.json"]
    two = worker_command(Devices("cpu", 2), Path("w.json"))
    assert two[1:6] == ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def test_workers_see_their_gpus_only_and_know_their_supervisor(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path)
    child = worker_environment(Devices("cuda", 1, ("3",)), config, {"OMP_NUM_THREADS": "5", "HOME": "/x"})
    assert child["CUDA_VISIBLE_DEVICES"] == "3"
    assert child["STRATIFIED_SUPERVISOR_PID"] == str(os.getpid())
    assert child["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "45"
    assert (child["OMP_NUM_THREADS"], child["HOME"]) == ("5", "/x")
    assert worker_environment(Devices("cpu", 1), config, {})["CUDA_VISIBLE_DEVICES"] == ""


def test_on_a_cpu_large_arrays_stay_in_the_heap(tiny: Tiny, tmp_path: Path) -> None:
    config, name = tiny.config(tmp_path), "MALLOC_MMAP_THRESHOLD_"
    assert int(worker_environment(Devices("cpu", 1), config, {})[name]) > 2**30
    assert worker_environment(Devices("cpu", 1), config, {name: "1"})[name] == "1"
    assert name not in worker_environment(Devices("cuda", 1, ("0",)), config, {})


def test_devices_are_described_in_words() -> None:
    texts = [Devices(kind, count).describe() for kind in ("cpu", "cuda") for count in (1, 2)]
    assert texts[0] == "CPU, one process"
    assert "gloo" in texts[1]
    assert texts[2].endswith("one process")
    assert "DDP" in texts[3]


def test_missing_training_packages_are_named_with_their_cure() -> None:
    check_packages()
    with pytest.raises(ConfigError, match=r"datasets, scipy are not installed.*pip install"):
        check_packages(lambda name: name not in {"datasets", "scipy"})
