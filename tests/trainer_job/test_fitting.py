"""After training: the score of strangeness is chosen by domains left out, and the choice is told."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from structlog.testing import capture_logs

from stratified_models.bundle import load_model, read_bundle
from stratified_models.testing import tiny_backbone
from tests.trainer_job.tiny import SIZES, Tiny, train_here
from trainer_job import results
from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError
from trainer_job.launch import Devices
from trainer_job.loading import load_config
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, Unit

WORDS = ["cheese", "train", "river", "window", "green", "seven", "paper", "slow", "music", "under"]


def three_domains(tiny: Tiny, place: Path, *settings: str) -> RunConfig:
    """The tiny configuration, and a third domain whose words the others lack."""
    path = tiny.yaml(place)
    tree = yaml.safe_load(path.read_text("utf-8"))
    rng, splits = random.Random(3), {}
    for split, size in SIZES.items():
        rows = [
            {"text": " ".join(rng.choices(WORDS, k=rng.randint(4, 16))) + f" {number}", "label": label}
            for number in range(size)
            for label in [("negative", "positive")[number % 2]]
        ]
        splits[split] = str(place / f"trains-{split}.jsonl")
        Path(splits[split]).write_text("\n".join(map(json.dumps, rows)), "utf-8")
    both = ["negative", "positive"]
    tree["data"]["domains"]["trains"] = {
        "source": {"kind": "files", "splits": splits},
        "label_map": {label: label for label in both},
        "labels": both,
    }
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return load_config(str(path), settings=("variants=[none]", "training.max_steps=2", *settings))


def test_the_score_is_chosen_by_domains_left_out_and_told(tiny: Tiny, tmp_path: Path) -> None:
    config = three_domains(tiny, tmp_path)
    assert config.model.out_of_domain_score == "auto"
    assert train_here(config, flag=StopFlag(None)) == 0
    layout = Layout.of(config)
    record = json.loads((layout.unit(Unit("none", 0)) / "unit.json").read_text("utf-8"))
    bound = record["calibration"]["out_of_domain"]
    assert bound["left_out"][bound["score"]] == max(bound["left_out"].values())
    assert all(0 <= value <= 1 for value in bound["left_out"].values())
    bundle = read_bundle(layout.unit(Unit("none", 0)) / "bundle")
    assert load_model(bundle).config.unknown_score == bound["score"] == bundle.manifest.out_of_domain.score
    card = (bundle.path / "README.md").read_text("utf-8")
    assert f"the score `{bound['score']}`" in card
    assert f"energy {bound['left_out']['energy']:.2f}" in card
    results.write(
        layout,
        results.build(
            config, layout, status="complete", command=["test"], devices=Devices("cpu", 1), samples=50
        ),
    )


def test_geometry_is_among_the_scores_that_a_model_with_strata_chooses_from(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = three_domains(tiny, tmp_path, "variants=[routing]")
    assert train_here(config, flag=StopFlag(None)) == 0
    unit = Layout.of(config).unit(Unit("routing", 0))
    bound = json.loads((unit / "unit.json").read_text("utf-8"))["calibration"]["out_of_domain"]
    assert list(bound["left_out"]) == ["energy", "geometry", "mahalanobis", "nearest"]
    assert bound["left_out"][bound["score"]] == max(bound["left_out"].values())
    assert load_model(read_bundle(unit / "bundle")).config.unknown_score == bound["score"]


@pytest.mark.parametrize("score", ["energy", "nearest"])
def test_a_score_that_is_named_is_not_compared(tiny: Tiny, tmp_path: Path, score: str) -> None:
    config = three_domains(tiny, tmp_path, f"model.out_of_domain_score={score}", "model.domain_fit_rows=0")
    assert train_here(config, flag=StopFlag(None)) == 0
    unit = Layout.of(config).unit(Unit("none", 0))
    bound = json.loads((unit / "unit.json").read_text("utf-8"))["calibration"]["out_of_domain"]
    assert (bound["score"], bound["left_out"]) == (score, None)
    assert "left out" not in (unit / "bundle" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_words_beside_the_head_are_fitted_where_asked(tiny: Tiny, tmp_path: Path, wanted: bool) -> None:
    config = three_domains(tiny, tmp_path, f"model.domain_words={str(wanted).lower()}")
    assert train_here(config, flag=StopFlag(None)) == 0
    unit = Layout.of(config).unit(Unit("none", 0))
    model = load_model(read_bundle(unit / "bundle"))
    assert model.config.domain_words == wanted
    assert (model.domain_words is not None and bool(model.domain_words.table.any())) == wanted
    if wanted:
        record = json.loads((unit / "unit.json").read_text("utf-8"))
        by_domain = record["test"]["domain_inference"]["by_domain"]
        assert by_domain["trains"] == 1.0  # by words that the other domains lack


def test_rows_beyond_the_sample_are_fitted_to_and_trained_on_no_more_than_before(
    tiny: Tiny, tmp_path: Path
) -> None:
    fitted = {}
    for name, settings in (
        ("plain", ()),
        ("spare", ("data.domain_rows=null", "model.domain_pairs=64")),
    ):
        place = tmp_path / name
        place.mkdir()
        config = three_domains(tiny, place, "data.train_samples=48", *settings)
        with capture_logs() as said:
            assert train_here(config, flag=StopFlag(None)) == 0
        model = load_model(read_bundle(Layout.of(config).unit(Unit("none", 0)) / "bundle"))
        fitted[name] = (model, next(line for line in said if line["event"] == "domain_head_fitted"))
    (plain, few), (spare, many) = fitted["plain"], fitted["spare"]
    assert (few["rows"], many["rows"]) == (48, sum(3 * [SIZES["train"]]))
    state, other = plain.state_dict(), spare.state_dict()
    moved = {name for name in state if not torch.equal(state[name], other[name][: len(state[name])])}
    assert moved == {"domain_head.weight", "domain_head.bias", "domain_words.table"}
    assert spare.domain_words is not None
    assert len(spare.domain_words.table) == spare.config.backbone_config.vocab_size + 64


def test_probes_of_later_blocks_are_fitted_and_move_nothing_but_what_is_said_of_domains(
    tiny: Tiny, tmp_path: Path
) -> None:
    fitted = {}
    for blocks in (0, 5):  # of three blocks, one is above the gate and below the last
        place = tmp_path / str(blocks)
        place.mkdir()
        tiny_backbone(place / "backbone", layers=3)
        config = three_domains(
            tiny, place, f"model.backbone={place / 'backbone'}", f"model.domain_blocks={blocks}"
        )
        with capture_logs() as said:
            assert train_here(config, flag=StopFlag(None)) == 0
        fitted[blocks] = load_model(read_bundle(Layout.of(config).unit(Unit("none", 0)) / "bundle"))
    line = next(line for line in said if line["event"] == "domain_probes_fitted")
    assert line["loss_after"] < 0.5 * math.log(3)
    assert (line["blocks"], line["rows"]) == (1, sum(3 * [SIZES["train"]]))
    state, other = fitted[0].state_dict(), fitted[5].state_dict()
    assert set(other) - set(state) == {"domain_probes.weight", "domain_probes.bias"}
    assert {name for name in state if not torch.equal(state[name], other[name])} == {"domain_words.table"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("model.domain_blocks=1", "model.domain_fit_rows=0"), "domain_blocks=1"),
        (("model.domain_pairs=64", "model.domain_words=false"), "domain_pairs=64"),
        (("data.domain_rows=9", "model.domain_fit_rows=0"), "domain_rows=9"),
    ],
)
def test_what_nothing_would_be_fitted_to_is_refused(
    tiny: Tiny, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        three_domains(tiny, tmp_path, *settings)
