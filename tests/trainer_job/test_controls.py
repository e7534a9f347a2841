"""Controls in a sweep: named in the configuration, trained like any variant, compared, and never served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stratified_models.bundle import load_model, read_bundle
from tests.trainer_job.tiny import Tiny, train_here
from trainer_job import results
from trainer_job.config import ARMS
from trainer_job.errors import ConfigError
from trainer_job.launch import Devices
from trainer_job.promote import parse_unit, promote
from trainer_job.ranks import StopFlag
from trainer_job.report import write_report
from trainer_job.selection import Predictions, compare, select, verdict
from trainer_job.units import Layout, Unit

SETTINGS = ("variants=[none,moe,moe:shuffled,none:matched]", "training.max_steps=3")


@pytest.fixture(scope="module")
def swept(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Layout, dict[str, Any]]:
    config = tiny.config(tmp_path_factory.mktemp("controls"), *SETTINGS)
    layout = Layout.of(config)
    assert train_here(config, flag=StopFlag(None)) == 0
    built = results.build(
        config, layout, status="complete", command=["test"], devices=Devices("cpu", 1), samples=50
    )
    return config, layout, results.write(layout, built)


def test_a_control_has_its_own_folder_and_key(swept: tuple[Any, Layout, dict[str, Any]]) -> None:
    _, layout, record = swept
    found = {unit["variant"]: (unit["control"], unit["path"]) for unit in record["units"]}
    assert found == {
        "none": (None, "none/seed-0"),
        "moe": (None, "moe/seed-0"),
        "moe:shuffled": ("shuffled", "moe+shuffled/seed-0"),
        "none:matched": ("matched", "none+matched/seed-0"),
    }
    for name, entry in record["variants"].items():
        assert (layout.results / entry["path"] / "manifest.json").is_file(), name


def test_a_control_is_trained_as_one(swept: tuple[Any, Layout, dict[str, Any]]) -> None:
    _, layout, record = swept
    config = json.loads((layout.results / "moe+shuffled/seed-0/bundle/config.json").read_text())
    assert (config["variant"], config["control"]) == ("moe", "shuffled")
    sizes = {name: entry["parameters"] for name, entry in record["variants"].items()}
    assert sizes["moe"] == sizes["moe:shuffled"]
    assert sizes["none:matched"] > sizes["none"]


def test_a_control_lies_where_no_service_looks_and_is_not_selected(
    swept: tuple[Any, Layout, dict[str, Any]],
) -> None:
    _, layout, record = swept
    assert (layout.results / "moe/manifest.json").is_file()
    assert not (layout.results / "moe+shuffled/manifest.json").exists()
    assert record["selected"]["variant"] in ("none", "moe")


def test_a_control_cannot_be_promoted(swept: tuple[Any, Layout, dict[str, Any]]) -> None:
    config, _, _ = swept
    for text in ("moe:shuffled", "moe:shuffled:0"):
        with pytest.raises(ConfigError, match="never served"):
            promote(config, text, reason="to see")
    assert parse_unit("moe:3") == ("moe", 3)


def test_the_report_shows_what_was_compared(
    swept: tuple[Any, Layout, dict[str, Any]], tmp_path: Path
) -> None:
    _, _, record = swept
    pairs = {(entry["a"], entry["b"]) for entry in record["comparisons"]}
    assert pairs == {
        ("moe", "none"),
        ("moe", "moe:shuffled"),
        ("moe", "none:matched"),
        ("moe:shuffled", "none"),
        ("none:matched", "none"),
    }
    assert "moe against its controls" in record["verdict"]
    text = write_report(record, tmp_path)[0].read_text(encoding="utf-8")
    assert "moe − moe:shuffled" in text


def predictions(**wrong: float) -> Predictions:
    """Rows of three classes, of which each arm gets a share wrong (`_` stands for the colon)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    found = {}
    for name, share in wrong.items():
        miss = rng.random((2, 600)) < share
        found[name.replace("__", ":")] = np.where(miss, (labels + 1) % 3, labels)
    return Predictions(labels, found)


def test_the_families_are_corrected_apart() -> None:
    alone = compare("validation", predictions(none=0.3, moe=0.3), samples=200)
    beside = compare(
        "validation", predictions(none=0.3, moe=0.3, moe__shuffled=0.3, none__matched=0.3), samples=200
    )
    assert alone[0]["p_corrected"] == alone[0]["p"]
    assert beside[0]["p_corrected"] == beside[0]["p"]  # the first family is still one comparison


def test_the_best_control_is_not_selected_and_the_verdict_says_what_was_not_beaten() -> None:
    arms = predictions(none=0.4, moe=0.2, moe__shuffled=0.05, moe__lexical=0.5)
    comparisons = compare("validation", arms, samples=300) + compare("test", arms, samples=300)
    records = [
        {"variant": name, "seed": 0, "validation": {"macro_f1": 1 - place / 10}, "path": name}
        for place, name in enumerate(["moe:shuffled", "moe", "none", "moe:lexical"])
    ]
    selected = select(records, comparisons)
    assert selected is not None
    assert selected["variant"] == "moe"
    words = verdict(selected, comparisons, {}, {})
    assert "it does not beat moe:shuffled (" in words
    assert select(records[:1], []) is None


def test_a_variant_that_beats_its_controls_is_said_to() -> None:
    arms = predictions(none=0.4, moe=0.1, moe__shuffled=0.4)
    comparisons = compare("test", arms, samples=300)
    selected = {"variant": "moe", "seed": 0, "reason": "so"}
    assert "it beats them all" in verdict(selected, comparisons, {}, {})


@pytest.mark.parametrize("name", ["moe:matched", "none:shuffled", "moe:", "moe:other"])
def test_what_is_no_control_is_refused(name: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VARIANT:CONTROL"):
        tiny.config(tmp_path, f"variants=['{name}']")


def test_names_and_folders() -> None:
    assert Unit("moe:shuffled", 2).name == "moe:shuffled:2"
    assert (Unit("moe:shuffled", 2).base, Unit("moe", 0).control) == ("moe", None)
    assert len({Unit(name, 0).path for name in ARMS}) == len(ARMS)
    assert all(":" not in Unit(name, 0).path for name in ARMS)


@pytest.mark.parametrize(("variant", "score"), [("none", "mahalanobis"), ("routing", "geometry")])
def test_a_named_out_of_domain_score_is_trained_recorded_and_bundled(
    tiny: Tiny, tmp_path: Path, variant: str, score: str
) -> None:
    config = tiny.config(
        tmp_path, f"variants=[{variant}]", "training.max_steps=2", f"model.out_of_domain_score={score}"
    )
    assert train_here(config, flag=StopFlag(None)) == 0
    bundle = Layout.of(config).unit(Unit(variant, 0)) / "bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["out_of_domain"]["score"] == score
    model = load_model(read_bundle(bundle))
    assert model.config.unknown_score == score
    assert model.config.unknown_rows > 0


@pytest.mark.parametrize("variant", ["none", "none:matched", "moe:random_gate", "layers:domain_only"])
def test_geometry_is_refused_where_an_arm_has_no_density(tiny: Tiny, tmp_path: Path, variant: str) -> None:
    with pytest.raises(ConfigError, match=f"density of a gate, and {variant} fits none; leave those out"):
        tiny.config(tmp_path, f"variants=[routing,{variant}]", "model.out_of_domain_score=geometry")
