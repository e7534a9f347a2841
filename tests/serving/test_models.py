"""Which model answers which name."""

from __future__ import annotations

from typing import Any, cast

import pytest

from serving.engines.fake import FakeEncoder, fake_card
from serving.errors import EngineCrashed, ModelNotFound, ModelNotLoaded, ModelNotReady
from serving.models import Deployment, Models
from serving.types import ModelState, ModelSummary


def deployment(name: str) -> Deployment:
    return Deployment(fake_card(name), FakeEncoder(), cast("Any", None))


def store() -> Models:
    models = Models()
    models.record(ModelSummary("moe", ModelState.AVAILABLE))
    models.record(ModelSummary("layers", ModelState.LOADING))
    models.record(ModelSummary("attention", ModelState.FAILED, error="sha256"))
    models.default = "none"
    models.add(deployment("none"))
    return models


def test_no_name_is_the_default() -> None:
    assert store().get("").card.version.name == store().get("none").card.version.name == "none"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [("mars", ModelNotFound, "not in the store; choose one of: attention, layers, moe, none"),
     ("moe", ModelNotLoaded, "--load selected,moe"), ("layers", ModelNotReady, "being loaded"),
     ("attention", ModelNotReady, "could not be loaded"), ("x" * 99, ModelNotFound, "x…")],
)  # fmt: skip
def test_other_names_are_told_why_not(name: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text.replace(",", r"\,")):
        store().get(name)


def test_before_anything_is_loaded_the_default_is_not_ready() -> None:
    models = Models()
    assert not models.ready
    with pytest.raises(ModelNotReady, match="no model yet"):
        models.get("")
    with pytest.raises(ModelNotFound, match="none yet"):
        models.get("moe")


def test_readiness_follows_the_default_model_alone() -> None:
    seen: list[bool] = []
    models = Models(on_change=seen.append)
    models.default = "none"
    models.add(deployment("moe"))
    models.add(deployment("none"))
    models.set_health("none", False)
    assert seen == [False, True, False]
    with pytest.raises(EngineCrashed):
        models.get("none")
    assert models.get("moe").card.version.name == "moe"
    models.set_health("none", True)
    assert models.ready
    assert {entry.card.version.name for entry in models.deployments} == {"moe", "none"}


def test_summaries_are_sorted_and_carry_the_reason() -> None:
    models = store()
    models.set_health("none", False)
    assert [entry.name for entry in models.summaries()] == ["attention", "layers", "moe", "none"]
    assert models.summaries()[0].error == "sha256"
    assert "restarted" in models.summaries()[3].error
