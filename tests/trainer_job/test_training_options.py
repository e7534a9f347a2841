"""Every option of training is reached from a configuration and does what it says, once each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stratified_models.backbone import Family
from tests.trainer_job.conftest import Swept
from tests.trainer_job.test_unit_run import StopAfter, record_of
from tests.trainer_job.tiny import Tiny, train_here
from trainer_job.evaluation import softmax
from trainer_job.predictions import read_arrays
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, Unit

UNIT = Unit("none", 0)
LABELS = ("negative", "neutral", "positive")
Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(tiny: Tiny, tmp_path: Path) -> Train:
    def run(*settings: str) -> dict[str, Any]:
        config = tiny.config(tmp_path, "variants=[none]", "training.test_given_domain=false", *settings)
        assert train_here(config, flag=StopFlag(None)) == 0
        return record_of(tmp_path, UNIT)

    return run


@pytest.fixture
def plain(swept: Swept) -> dict[str, Any]:
    """The same unit without any option."""
    return record_of(swept.yaml.parent, UNIT)


def losses(record: dict[str, Any]) -> list[float]:
    return [point["loss"] for point in record["curves"]["train"]]


def test_accumulated_micro_batches_train_like_whole_ones(train: Train, tiny: Tiny, tmp_path: Path) -> None:
    still = ("model.dropout=0.0", "model.domain_dropout=0.0")
    parts = train(*still, "training.micro_batch_size=4")
    assert (parts["micro_batch_size"], parts["accumulation_steps"]) == (4, 4)
    other = tiny.config(tmp_path / "whole", "variants=[none]", *still)
    assert train_here(other, flag=StopFlag(None)) == 0
    whole = record_of(tmp_path / "whole", UNIT)
    assert losses(parts) == pytest.approx(losses(whole), abs=2e-3)


def test_activations_computed_again_change_no_weight(
    train: Train, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    original = Family.run_block

    def counted(self: Family, block: Any, *arguments: Any) -> Any:
        calls.append(block.training)
        return original(self, block, *arguments)

    monkeypatch.setattr(Family, "run_block", counted)
    again = train("training.activation_checkpointing=true")
    assert losses(again) == pytest.approx(losses(plain), abs=1e-3)
    assert sum(calls) == 2 * 6 * again["steps"]  # six blocks, forward and once more in the backward pass


def test_bf16_trains_in_bf16(train: Train, plain: dict[str, Any]) -> None:
    found = train("hardware.precision=bf16")
    assert found["precision"] == "bf16"
    assert found["weights_sha256"] != plain["weights_sha256"]
    assert losses(found) == pytest.approx(losses(plain), abs=0.1)


def test_label_smoothing_reaches_the_model(train: Train, tmp_path: Path, plain: dict[str, Any]) -> None:
    found = train("training.label_smoothing=0.3")
    assert found["weights_sha256"] != plain["weights_sha256"]
    bundle = Layout(tmp_path / "results", tmp_path).unit(UNIT) / "bundle"
    assert json.loads((bundle / "config.json").read_text(encoding="utf-8"))["label_smoothing"] == 0.3


def test_attention_dropout_reaches_the_model(train: Train, tmp_path: Path, plain: dict[str, Any]) -> None:
    found = train("model.attention_dropout=0.5")
    assert found["weights_sha256"] != plain["weights_sha256"]
    bundle = Layout(tmp_path / "results", tmp_path).unit(UNIT) / "bundle"
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert config["backbone_config"]["attention_dropout"] == 0.5


def test_layer_decay_holds_the_lower_blocks_closer(train: Train, plain: dict[str, Any]) -> None:
    found = train("training.layer_decay=0.5")
    assert found["weights_sha256"] != plain["weights_sha256"]


def test_early_stopping_ends_before_the_planned_steps(train: Train) -> None:
    found = train(
        "training.early_stopping_patience=1", "training.evaluations=8", "training.learning_rate=1.0e-9"
    )
    assert found["steps"] < found["planned_steps"]
    assert found["steps"] > found["best_step"]


def test_averaged_weights_are_evaluated_kept_and_resumed_to_the_bit(
    train: Train, tiny: Tiny, tmp_path: Path, plain: dict[str, Any]
) -> None:
    whole = train("training.weight_average=0.9")
    assert whole["weights_sha256"] != plain["weights_sha256"]
    assert losses(whole) == pytest.approx(losses(plain))  # the trained weights are the same
    settings = ("variants=[none]", "training.test_given_domain=false", "training.weight_average=0.9")
    other = tiny.config(tmp_path / "other", *settings)
    assert train_here(other, flag=StopAfter(9)) == 75
    assert train_here(other, flag=StopFlag(None)) == 0
    resumed = record_of(tmp_path / "other", UNIT)
    assert resumed["resumed_from_step"] == 9
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["test"] == whole["test"]


def test_the_domain_head_is_fitted_to_the_end_unless_told_not_to(
    train: Train, plain: dict[str, Any], tmp_path: Path
) -> None:
    left = train("model.domain_fit_rows=0")
    assert losses(left) == losses(plain)  # training itself is the same
    assert plain["validation"]["domain_accuracy"] > left["validation"]["domain_accuracy"] + 0.05
    assert plain["validation"]["accuracy"] == pytest.approx(left["validation"]["accuracy"], abs=0.05)


def test_prior_correction_moves_shares_towards_those_of_validation(
    train: Train, tiny: Tiny, tmp_path: Path
) -> None:
    """Training is balanced over three labels; validation has no neutral rows but one in three by nature."""
    shop = tmp_path / "data"
    shop.mkdir()
    for path in tiny.root.glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.name in ("shop-validation.jsonl", "shop-test.jsonl"):
            neutral = [line for line in lines if '"neutral"' in line]
            lines = [*neutral, *(line for line in lines if line not in neutral)][: len(neutral) + 4]
        (shop / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = (f"data.root={shop}", "data.train_samples=120", "data.label_shares=even")
    found = train(*settings, "training.learning_rate=1.0e-5", "training.prior_correction=true")
    added = found["prior_correction"]["shop"]
    assert added["neutral"] > 0 > added["positive"]
    assert set(found["prior_correction"]["films"]) == {"negative", "positive"}
    assert found["test"]["per_domain"]["shop"]["neutral_share"] > 0.5
    bundle = load_file(Layout(tmp_path / "results", tmp_path).unit(UNIT) / "bundle" / "model.safetensors")
    bias = bundle["domain_head.class_bias"]
    assert bias[1, 1] - bias[1, 2] > 1  # it is in what is served


def test_a_held_out_domain_is_tested_and_recorded(train: Train, tmp_path: Path) -> None:
    found = train("data.hold_out=films")
    held = found["held_out"]
    assert held["domain"] == "films"
    assert held["n"] == 60
    assert 0 <= held["auroc"]["energy"] <= 1
    assert set(found["test"]["per_domain"]) == {"shop"}
    kept = read_arrays(tmp_path / "results" / UNIT.path / "predictions.parquet", labels=LABELS)
    assert softmax(kept["held_out"]["logits"]).shape == (60, 3)
    assert np.mean(kept["held_out"]["logits"].argmax(1) == kept["held_out"]["labels"]) == pytest.approx(
        held["accuracy"]
    )


def test_mlflow_gets_a_run_for_each_unit_on_a_local_folder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "sweep")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    short = (
        "variants=[none, layers]",
        "report_to=[mlflow]",
        "training.max_steps=4",
        "training.evaluations=1",
    )
    config = tiny.config(tmp_path, *short)
    assert train_here(config, flag=StopFlag(None)) == 0
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"none:0", "layers:0"}
    for run in runs:
        assert run.info.status == "FINISHED"
        unit = record_of(tmp_path, Unit(run.info.run_name.partition(":")[0], 0))
        assert run.data.metrics["test/macro_f1"] == pytest.approx(unit["test"]["macro_f1"])
        assert "eval_macro_f1" in json.dumps(list(run.data.metrics))


@pytest.mark.skipif("CHAOS" not in os.environ, reason="compiling takes minutes: `make chaos`")
def test_a_compiled_model_trains_and_is_saved_plainly(train: Train, plain: dict[str, Any]) -> None:
    torch.compiler.reset()
    counters: Any = vars(torch._dynamo.utils)["counters"]
    counters.clear()
    found = train("training.torch_compile=true", "training.max_steps=3", "training.evaluations=1")
    assert found["steps"] == 3
    assert counters["frames"]["ok"] > 0  # the option does something
    assert losses(found)[0] == pytest.approx(losses(plain)[0], abs=1e-3)
