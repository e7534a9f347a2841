"""What may be planned beside the default: both halves of a part, and variants that the store has."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadSettings, BadStore
from serving.plan import Plan
from serving.source import Found, Store

STORE = Store(Path("results"), {n: Found(n, Path(n)) for n in ("none", "moe", "layers")}, "none")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(canary="moe"), "--canary-model 'moe' is given without --canary-percent"),
        (Plan(canary_percent=5), "--canary-percent 5 is given without --canary-model"),
        (Plan(shadow="moe"), "--shadow-model 'moe' is given without --shadow-percent"),
        (Plan(shadow_percent=0.5), "--shadow-percent 0.5 is given without --shadow-model"),
    ],
)
def test_half_a_part_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        plan.check()


def test_an_empty_plan_and_a_full_one_are_good() -> None:
    assert Plan().check().check_store(STORE) == []
    full = Plan("moe", 1, "layers", 100)
    assert full.check().check_store(STORE) == ["moe", "layers"]
    assert Plan("moe", 1, "moe", 100).check_store(STORE) == ["moe"], "loaded once"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(canary="mars", canary_percent=1), "--canary-model 'mars' has no bundle in results"),
        (Plan(shadow="none", shadow_percent=1), "--shadow-model 'none' is the default itself"),
    ],
)
def test_a_variant_that_cannot_play_its_part_is_refused(plan: Plan, words: str) -> None:
    with pytest.raises(BadStore, match=words):
        plan.check_store(STORE)
