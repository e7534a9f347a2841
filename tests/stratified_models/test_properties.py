"""Properties over drawn batches: padding, company and order never change what a row gets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratified_models import StratifiedForSequenceClassification
from stratified_models.testing import tiny_model
from tests.stratified_models.conftest import DOMAINS, STRATIFIED, move_

FIELDS = ("logits", "domain_logits", "energy", "geometry", "occupancy")
CLS, SEP, PAD = 2, 3, 0

rows = st.lists(st.lists(st.integers(1, 300), max_size=20), min_size=1, max_size=5)
quick = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=STRATIFIED)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> StratifiedForSequenceClassification:
    folder = tmp_path_factory.mktemp("properties")
    return move_(tiny_model(folder, variant=request.param, domains=DOMAINS)).prepare_for_inference()


def batch(texts: list[list[int]], extra: int = 0) -> dict[str, Tensor]:
    longest = max(len(text) for text in texts) + 2 + extra
    ids = torch.full((len(texts), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        tokens = [CLS, *text, SEP]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def outputs(
    model: StratifiedForSequenceClassification, texts: list[list[int]], extra: int = 0
) -> dict[str, Tensor]:
    with torch.no_grad():
        out = model(**batch(texts, extra))
    return {name: out[name] for name in FIELDS}


def assert_near(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    for name in FIELDS:
        assert bool(torch.isfinite(one[name]).all()), name
        # 1e-4 of room: a kernel may sum in another order at another shape, and geometry is a large number
        assert torch.allclose(one[name], two[name], atol=2e-5, rtol=1e-4), name


@quick
@given(texts=rows, extra=st.integers(1, 30))
def test_padding_changes_nothing(
    model: StratifiedForSequenceClassification, texts: list[list[int]], extra: int
) -> None:
    assert_near(outputs(model, texts), outputs(model, texts, extra))


@quick
@given(texts=rows)
def test_company_changes_nothing(model: StratifiedForSequenceClassification, texts: list[list[int]]) -> None:
    together = outputs(model, texts)
    for row, text in enumerate(texts):
        assert_near(
            outputs(model, [text]), {name: tensor[row : row + 1] for name, tensor in together.items()}
        )


@quick
@given(texts=rows, data=st.data())
def test_order_changes_nothing(
    model: StratifiedForSequenceClassification, texts: list[list[int]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    one = {name: tensor[list(order)] for name, tensor in outputs(model, texts).items()}
    assert_near(one, outputs(model, [texts[i] for i in order]))
