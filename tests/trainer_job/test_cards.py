"""A card learns the verdict once, keeps its own words, and its bundle stays intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stratified_models.bundle import CARD, read_bundle
from stratified_models.testing import tiny_bundle
from trainer_job.cards import HEADING, add_verdict, with_verdict


def record(**changes: Any) -> dict[str, Any]:
    base = {"status": "complete", "selected": {"variant": "none"}, "verdict": "None is best."}
    return {**base, "variants": {"none": {}, "moe": {}, "none:matched": {}}, **changes}


def test_the_verdict_enters_every_card_and_the_bundles_verify(tmp_path: Path) -> None:
    for name in ("none", "moe"):
        tiny_bundle(tmp_path / name, variant=name)
    assert add_verdict(tmp_path, record()) == ["none", "moe"]
    cards = {name: (tmp_path / name / CARD).read_text() for name in ("none", "moe")}
    assert "This variant was selected. None is best." in cards["none"]
    assert "This variant was not selected. None is best." in cards["moe"]
    assert all(card.startswith("# tiny\n\n") for card in cards.values())
    before = read_bundle(tmp_path / "none", verify=True).sha256
    add_verdict(tmp_path, record())
    assert read_bundle(tmp_path / "none", verify=True).sha256 == before


def test_a_later_verdict_replaces_an_earlier_one() -> None:
    card = with_verdict("# Card\n\nWords.\n", "First.", selected=False)
    again = with_verdict(card, "Second.", selected=True)
    assert again.count(HEADING) == 1
    assert again.startswith("# Card\n\nWords.\n\n")
    assert "First" not in again


@pytest.mark.parametrize("changes", [{"status": "running"}, {"selected": None}])
def test_nothing_is_written_before_there_is_a_verdict(changes: dict[str, Any], tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "none")
    assert add_verdict(tmp_path, record(**changes)) == []
    assert (tmp_path / "none" / CARD).read_text() == "# tiny\n"
