"""The GPU benchmark on a CPU: both ways train, the sweep is the job's own and keeps to its limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_training
from benchmarks.bundles import DOMAINS, SHAPES, random_backbone
from benchmarks.texts import made_up
from tests.benchmarks.test_runs import record_of
from trainer_job.loading import load_config

TEXTS = made_up(120)


def test_training_flops_are_those_of_the_formula() -> None:
    assert gpu_training.training_flops([10], 4, 2) == 6 * (12 * 2 * 16) * 10 + 12 * 2 * 4 * 100


def test_each_shape_has_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--device", "cpu", "--shapes", "tiny", "--texts", "8", "--rounds", "1", "--sweep-texts", "0"]
    assert gpu.main([*brief, "--out", str(tmp_path)]) == 0
    record: Any = record_of(tmp_path, "gpu")
    ways = ["eager fp32", "engine bf16", "plain, padded to 256", "grouped, bf16"]
    assert list(record["table"]) == ["tiny"]
    assert list(record["table"]["tiny"]) == ways
    assert all(row["texts_per_second"] > 0 for row in record["table"]["tiny"].values())
    assert [len(taken) for taken in record["samples"]["tiny"]["training"].values()] == [1, 1]
    assert (record["card"], record["sweep"]) == ("cpu", None)
    assert "cpu, tiny: grouped, bf16" in capsys.readouterr().out


def swept(folder: Path, limit: float) -> dict[str, Any]:
    source = str(random_backbone(folder / "backbone", SHAPES["tiny"]))
    how: dict[str, Any] = {"source": source, "shape": "tiny", "device": "cpu", "variants": ["none"]}
    return gpu_training.sweep(folder / "sweep", texts=TEXTS, limit=limit, **how)


@pytest.mark.slow
def test_the_sweep_is_timed(tmp_path: Path) -> None:
    found = swept(tmp_path, 240)
    assert found["texts"] == len(TEXTS)
    assert found["train_seconds"].keys() == found["tokens_per_second"].keys() == {"none"}
    assert found["seconds"] > found["train_seconds"]["none"] > 0


def test_a_sweep_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert swept(tmp_path, 0.5) == {"stopped_after": 0.5}


def test_a_sweep_that_fails_says_why(tmp_path: Path) -> None:
    how: dict[str, Any] = {"shape": "tiny", "device": "cpu", "variants": ["none"], "limit": 240}
    with pytest.raises(RuntimeError, match=r"the sweep ended with 3: .*nowhere"):
        gpu_training.sweep(tmp_path / "sweep", source=str(tmp_path / "nowhere"), texts=TEXTS, **how)


def test_its_configuration_gives_every_text_to_one_split(tmp_path: Path) -> None:
    path = gpu_training.sweep_config(
        tmp_path / "sweep",
        source="package:x",
        shape="tiny",
        texts=TEXTS,
        device="cuda",
        variants=["none", "moe"],
    )
    config = load_config(str(path))
    assert (config.variants, config.hardware.device) == (("none", "moe"), "cuda")
    assert tuple(config.data.domains) == DOMAINS
    rows = [line for file in path.parent.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(rows) == len(set(rows)) == len(TEXTS)
