"""Turns, ratios and the record: what all benchmarks rest on."""

from __future__ import annotations

import json
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.record import alternate, asked, in_ms, processor, ratio, spread, write_record


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    samples = alternate({name: partial(calls.append, name) for name in "abc"}, rounds=4, warm_up=2)
    assert [sorted(calls[at : at + 3]) for at in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    assert len({tuple(calls[at : at + 3]) for at in range(0, 18, 3)}) > 1
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert set(samples["a"][0]) == {"wall", "cpu"}


def test_ratios_are_of_medians() -> None:
    samples = {
        "slow": [{"wall": value, "cpu": 4.0} for value in (1.0, 6.0, 99.0)],
        "quick": [{"wall": value, "cpu": 1.0} for value in (2.0, 3.0, 50.0)],
    }
    assert ratio(samples, "slow", "quick") == 2.0
    assert ratio(samples, "slow", "quick", clock="cpu") == 4.0
    samples["quick"] = [{"wall": 0.0, "cpu": 0.0}]
    assert ratio(samples, "slow", "quick") == float("inf")


def test_spread_is_median_and_quartiles() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == (2.0, 4.0, 6.0)
    assert spread([5.0]) == (5.0, 5.0, 5.0)


def test_a_record_says_where_it_comes_from(tmp_path: Path) -> None:
    path = write_record("engines", {"rounds": 3}, out=tmp_path / "new", name="tiny")
    record = json.loads(path.read_text())
    assert path.name.startswith("engines-tiny-")
    assert record["rounds"] == 3
    assert record["benchmark"] == "engines"
    assert record["versions"]["torch"]
    assert record["processor"] == processor()
    assert len(record["load_average"]) == 3


def test_samples_stand_on_one_line_and_read_back(tmp_path: Path) -> None:
    record = {
        "samples": in_ms([0.0012345, 2.0]),
        "rows": [{"a": [1, -2.5e-7]}, {"a": []}],
        "words": ["1\n2", "[\n3"],
    }
    path = write_record("x", record, out=tmp_path)
    text = path.read_text()
    assert '"samples": [1.23, 2000.0]' in text
    assert '"a": [1, -2.5e-07]' in text
    assert {key: json.loads(text)[key] for key in record} == record


def test_what_was_asked_for_names_no_folder_of_the_machine() -> None:
    options = Namespace(rounds=3, models=Path("/home/me/moe"), texts=Path("a/b.csv"), out=Path("/home/me"))
    assert asked(options) == {"rounds": 3, "models": "moe", "texts": "a/b.csv"}


def test_the_processor_is_named() -> None:
    found = processor()
    assert found["cores"] >= 1
    assert found["model"] is not None


@pytest.mark.parametrize("name", ["absent-package"])
def test_a_package_that_is_not_there_has_no_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.record.PACKAGES", (name,))
    assert json.loads(write_record("x", {}, out=tmp_path).read_text())["versions"][name] == ""
