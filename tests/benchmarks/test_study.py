"""The study's sweeps asked about whole test splits, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import study
from benchmarks.study_report import claims_table, write_study
from benchmarks.study_where import where, where_table
from benchmarks.study_whole import NAME, ask_whole
from tests.trainer_job.tiny import Tiny, make_tiny, train_here
from trainer_job import results
from trainer_job.launch import Devices
from trainer_job.ranks import StopFlag
from trainer_job.units import Layout, record_identity


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def sweep(data: Tiny, folder: Path, *settings: str) -> dict[str, Any]:
    """Train `none` and `routing` in this process; the record of it."""
    chosen = ("variants=[none, routing]", "seeds=[0]", "training.epochs=1", *settings)
    config = data.config(folder, *chosen)
    layout = Layout.of(config)
    assert train_here(config, flag=StopFlag(None)) == 0
    record_identity(layout, config)
    built = results.build(
        config, layout, status="complete", command=["study"], devices=Devices("cpu", 1), samples=200
    )
    return results.write(layout, built)


@pytest.fixture(scope="module")
def out(data: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished sweeps: `rows-40` saw 20 test rows, `rows-80` saw them all."""
    place = tmp_path_factory.mktemp("study")
    sweep(data, place / "rows-40", "data.train_samples=40", "data.test_samples=20")
    sweep(data, place / "rows-80", "data.train_samples=80", "data.test_samples=null")
    return place


def test_where_all_test_rows_were_seen_the_figures_are_those_of_the_sweep(out: Path, data: Tiny) -> None:
    folder = out / "rows-80"
    record = json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))
    whole = json.loads(ask_whole(folder, data.root, samples=2000).read_text(encoding="utf-8"))
    for name, entry in record["variants"].items():
        for metric in ("accuracy", "macro_f1", "ece"):
            expected = entry["test"][metric]["mean"]
            assert whole["variants"][name]["test"][metric]["mean"] == pytest.approx(expected, abs=1e-5)
    assert [entry["delta"] for entry in whole["comparisons"]] == pytest.approx(
        [entry["delta"] for entry in record["comparisons"]]
    )


def test_the_rows_that_were_left_out_are_asked_too(out: Path, data: Tiny) -> None:
    folder = out / "rows-40"
    whole = json.loads(ask_whole(folder, data.root).read_text(encoding="utf-8"))
    assert whole["variants"]["none"]["test"]["n"] == 2 * 60
    assert whole["selected"] == json.loads((folder / "results" / "results.json").read_text())["selected"]


def test_a_variant_with_other_seeds_than_the_baseline_has_no_gain() -> None:
    def entry(accuracy: float, *seeds: int) -> dict[str, Any]:
        return {"seeds": list(seeds), "test": {"accuracy": {"mean": accuracy}}}

    variants = {"none": entry(0.5, 0, 1), "moe": entry(0.6, 0, 1), "routing": entry(0.6, 1)}
    moe, routing = claims_table({400: {"variants": variants}}).splitlines()[-2:]
    assert moe == "| moe | 400 | +20.0 % | +36.0 % |"
    assert routing == "| routing | 400 | – | +39.0 % |"


def test_differences_are_taken_seed_by_seed() -> None:
    def unit(variant: str, seed: int, right: list[int], ece: float) -> dict[str, Any]:
        test = {"worst_domain": {"macro_f1": 0.5 + 0.1 * seed}, "per_domain": {"films": {"ece": ece}}}
        test |= {"accuracy": 0.7, "macro_f1": 0.6}
        told = {"variant": variant, "seed": seed, "test": test}
        return where(told, np.array(right, dtype=bool), np.array([True, True, False, False]))

    entries = [
        unit("none", 0, [0, 0, 1, 1], 0.1),
        unit("none", 1, [0, 1, 1, 1], 0.2),
        unit("moe", 1, [1, 1, 1, 0], 0.3),
        unit("moe", 0, [1, 0, 1, 1], 0.1),
    ]
    none, moe = where_table({40: {"variants": ["none", "moe"], "where": entries}}).splitlines()[-2:]
    assert none == "| 40 | none | 0.550 | 0.150 | 0.250 | 1.000 |"
    assert moe == "| 40 | moe | +0.000 ± 0.000 | +0.050 ± 0.050 | +0.500 ± 0.000 | -0.250 ± 0.250 |"


def test_texts_that_no_unit_met_have_no_figure() -> None:
    told = {
        "variant": "none",
        "seed": 0,
        "test": {
            "accuracy": 0.7,
            "macro_f1": 0.6,
            "worst_domain": {"macro_f1": 0.5},
            "per_domain": {"films": {"ece": 0.1}},
        },
    }
    entry = where(told, np.array([True]), np.array([False]))
    assert (entry["cut"], entry["uncut"]) == (None, 1.0)
    assert (
        where_table({40: {"variants": ["none"], "where": [entry]}}).splitlines()[-1]
        == "| 40 | none | 0.500 | 0.100 | – | 1.000 |"
    )


def test_what_was_asked_is_not_asked_again(out: Path, data: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    ask_whole(out / "rows-40", data.root)
    kept = out / "rows-40" / "results" / "none" / "seed-0" / NAME
    made = kept.stat().st_mtime_ns
    capsys.readouterr()
    ask_whole(out / "rows-40", data.root)
    assert (kept.stat().st_mtime_ns, capsys.readouterr().err) == (made, "")
    kept.with_name("unit.json").touch()  # as a unit that was trained again
    ask_whole(out / "rows-40", data.root)
    assert kept.stat().st_mtime_ns > made


def test_other_training_rows_are_refused(out: Path, data: Tiny, tmp_path: Path) -> None:
    for path in data.root.glob("*.jsonl"):
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / path.name).write_text("".join(kept[: 30 if "train" in path.name else None]))
    with pytest.raises(SystemExit, match=r"films: trained on .*, these files give"):
        ask_whole(out / "rows-80", tmp_path)


def test_tables_hold_every_arm_and_the_whole_test_splits(out: Path, data: Tiny, tmp_path: Path) -> None:
    study.main(["whole", "--out", str(out), "--data", str(data.root)])
    study.main(["write", "--out", str(out), "--docs", str(tmp_path)])
    text = (tmp_path / "study-tables.md").read_text(encoding="utf-8")
    assert "### 40 training rows, 120 test rows" in text
    assert "### 80 training rows, 120 test rows" in text
    assert text.count("| routing | 1 |") == 2
    assert text.count("### Where strata could pay") == 1
    assert (tmp_path / "images" / "study-curve.png").stat().st_size > 10_000
    (out / "rows-80" / "whole.json").unlink()
    study.main(["write", "--out", str(out), "--docs", str(tmp_path)])
    text = (tmp_path / "study-tables.md").read_text(encoding="utf-8")
    assert "### 40 training rows, 20 test rows" in text  # all of whole splits, or none
    assert write_study(tmp_path, tmp_path) == [tmp_path / "study-tables.md"]  # nothing finished: no tables


def test_sizes_that_were_kept_are_written_beside_those_that_are_here(
    out: Path, data: Tiny, tmp_path: Path
) -> None:
    study.main(["whole", "--out", str(out), "--data", str(data.root)])
    kept = tmp_path / "kept"
    study.main(["write", "--out", str(out), "--docs", str(tmp_path / "all"), "--keep", str(kept)])
    small, large = sorted(kept.glob("study-rows-*.json"))
    told = small.read_text(encoding="utf-8")
    assert str(out) not in told
    assert str(data.root) not in told
    scores = {unit["variant"]: unit["macro_f1"] for unit in json.loads(told)["where"]}
    whole = json.loads((out / "rows-40" / "whole.json").read_text(encoding="utf-8"))
    for name, entry in whole["variants"].items():
        assert scores[name] == pytest.approx(entry["test"]["macro_f1"]["mean"])

    elsewhere = tmp_path / "elsewhere"  # where 80 rows were run, and 40 were not
    (elsewhere / "rows-80").mkdir(parents=True)
    for name in ("results", "whole.json"):
        (elsewhere / "rows-80" / name).symlink_to(out / "rows-80" / name)
    study.main(["write", "--out", str(elsewhere), "--docs", str(elsewhere / "docs"), "--kept", str(small)])
    tables = [place / "study-tables.md" for place in (tmp_path / "all", elsewhere / "docs")]
    assert tables[0].read_text(encoding="utf-8") == tables[1].read_text(encoding="utf-8")
    assert large.name != small.name


def test_a_file_that_is_no_record_is_not_written_from(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"benchmark": "soak"}', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"--kept .*other\.json: no record of `write --keep` \(KeyError"):
        study.main(["write", "--out", str(tmp_path), "--kept", str(path)])


def chosen(
    monkeypatch: pytest.MonkeyPatch, folder: Path, scale: study.Scale, gains: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """baseline.json of two seeds, where each sweep's gains over `plain` are told by its folder's name."""

    def sweep(self: study.Study, name: str, *arguments: object) -> dict[str, Any]:
        gain = gains.get(name.removeprefix("baseline/"), (0.0, 0.0))
        seeds = [gain[seed % 2] for seed in range(scale.tuning_seeds)]
        return {"units": [{"status": "complete", "validation": {"macro_f1": 0.6 + one}} for one in seeds]}

    monkeypatch.setattr(study.Study, "sweep", sweep)
    settings = study.Study(folder, folder, scale).baseline()
    record: dict[str, Any] = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
    assert list(settings) == record["settings"]
    return record


def test_an_option_is_taken_where_every_seed_gains_and_it_is_not_too_dear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gains = {
        "natural-label-shares": (0.02, 0.03),
        "prior-correction": (0.01, 0.02),  # leaves nothing to do beside the one above
        "averaged-weights": (0.09, -0.01),  # by one seed alone
        "label-smoothing-0.05": (0.01, 0.01),
        "nothing-frozen": (0.05, 0.05),
        "together": (0.04, 0.03),
    }
    record = chosen(monkeypatch, tmp_path, study.REDUCED, gains)
    assert record["helped"] == ["natural label shares", "label smoothing 0.05"]
    assert record["chosen"] == "together"
    assert record["settings"] == ["data.label_shares=natural", "training.label_smoothing=0.05"]
    assert record["tried"]["nothing frozen"] == pytest.approx(0.65)
    assert not {"256 tokens", "three epochs", "rate 2e-4"} & set(record["tried"])  # it has them already


def test_where_nothing_helps_the_settings_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = chosen(monkeypatch, tmp_path, study.FULL, {"nothing-frozen": (0.1, 0.1)})
    assert (record["chosen"], record["settings"], record["helped"]) == ("plain", [], [])


def test_a_baseline_is_not_chosen_from_units_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study.Study, "sweep", lambda *_: {"units": [{"status": "failed"}] * 2})
    with pytest.raises(SystemExit, match="baseline/plain: 0 of 2 units are complete"):
        study.Study(tmp_path, tmp_path, study.REDUCED).baseline()
    assert not (tmp_path / "baseline.json").exists()
