"""Every option of a request over the wire, against a tiny real model: what it keeps, gives and warns of."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.app import App
from serving.engines.choice import Wishes
from serving.loading import BundleSource
from stratified_models.testing import tiny_bundle
from tests.serving.conftest import settings

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server for all of them
Request, Options = sentiment_pb2.ClassifyRequest, sentiment_pb2.ClassifyOptions
LENGTH = 16  # tokens that the model reads, two special ones among them
LONG = " ".join(["good", "film"] * 20 + ["bad"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`routing`, whose domain imdb never has the label neutral."""
    folder = tmp_path_factory.mktemp("pipeline") / "routing"
    tiny_bundle(folder, variant="routing", max_length=LENGTH)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for domain in manifest["domains"]:
        if domain["name"] == "imdb":
            domain["labels"] = ["positive"]
    path.write_text(json.dumps(manifest))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(bundle: Path) -> AsyncIterator[Any]:
    source = BundleSource(bundle, "", Wishes(engine="torch", device="cpu"), time.monotonic)
    app = App(settings(watch_seconds=0), registry=CollectorRegistry(), source=source)
    ports = await app.listen()
    await app.load_models()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.service}") as channel:
        yield sentiment_pb2_grpc.SentimentServiceStub(channel)
    await app.stop(settle=0)


async def classify(stub: Any, text: str, domain: str = "", **options: Any) -> Any:
    return (await stub.Classify(Request(text=text, domain=domain, options=Options(**options)))).result


@pytest.mark.parametrize(
    ("mode", "kept"),
    [(0, "head"), (1, "head"), (2, "tail"), (3, "both")],
    ids=["not said", "HEAD", "TAIL", "HEAD_TAIL"],
)
async def test_truncation_keeps_what_it_says(stub: Any, mode: int, kept: str) -> None:
    result = await classify(stub, LONG, truncation=mode, explain=True)
    assert (result.token_count, result.truncated) == (LENGTH, True)
    assert result.original_token_count > LENGTH
    assert sentiment_pb2.WARNING_TRUNCATED in result.warnings
    inner = result.tokens[1:-1]
    starts, ends = [token.start for token in inner], [token.end for token in inner]
    assert starts == sorted(starts)
    assert (starts[0] == 0) is (kept != "tail")
    assert (ends[-1] == len(LONG)) is (kept != "head")
    assert "".join(LONG[token.start : token.end] for token in inner).replace(" ", "")


async def test_a_text_that_fits_is_left_alone_by_every_mode(stub: Any) -> None:
    plain = await classify(stub, "good film")
    for mode in range(5):
        result = await classify(stub, "good film", truncation=mode)
        assert (result.truncated, list(result.scores)) == (False, list(plain.scores))
        assert sentiment_pb2.WARNING_TRUNCATED not in result.warnings


async def test_scores_are_the_calibrated_logits_and_top_k_cuts_them(stub: Any) -> None:
    result = await classify(stub, "good film", raw_logits=True)
    powers = np.exp(np.array(result.logits) / 1.5)
    labels = [entry.label for entry in result.scores]
    assert sorted(labels) == ["negative", "neutral", "positive"]
    by_label = {entry.label: entry.score for entry in result.scores}
    expected = dict(zip(("negative", "neutral", "positive"), powers / powers.sum(), strict=True))
    assert by_label == pytest.approx(expected, abs=1e-5)
    assert [entry.score for entry in result.scores] == sorted(by_label.values(), reverse=True)
    assert (result.label, result.score) == (labels[0], pytest.approx(max(by_label.values())))
    for top_k in (1, 2, 3):
        cut = await classify(stub, "good film", top_k=top_k)
        assert [entry.label for entry in cut.scores] == labels[:top_k]
        assert not cut.logits


async def test_explain_gives_each_token_its_strata_and_its_saliency(stub: Any) -> None:
    result = await classify(stub, "good film", explain=True)
    assert len(result.tokens) == result.token_count
    for token in result.tokens:
        assert sum(entry.occupancy for entry in token.strata) == pytest.approx(1, abs=1e-5)
        assert token.saliency >= 0
    assert sum(entry.occupancy for entry in result.strata) == pytest.approx(1, abs=1e-5)
    assert len((await classify(stub, "good film")).tokens) == 0


async def test_timings_fit_into_the_total(stub: Any) -> None:
    spent = (await classify(stub, "good film", timings=True)).timings
    parts = (spent.tokenize, spent.queue, spent.inference)
    assert sum(part.ToNanoseconds() for part in parts) <= spent.total.ToNanoseconds()
    assert (spent.batch_items, spent.batch_tokens) == (1, 4)


async def test_domains_strict_and_lenient(stub: Any) -> None:
    given = await classify(stub, "good film", "imdb", strict_domain=True)
    assert (given.domain, given.domain_source) == ("imdb", sentiment_pb2.DOMAIN_SOURCE_GIVEN)
    inferred = await classify(stub, "good film")
    assert inferred.domain_source == sentiment_pb2.DOMAIN_SOURCE_INFERRED
    assert inferred.domain == inferred.domain_scores[0].domain
    assert sum(entry.score for entry in inferred.domain_scores) == pytest.approx(1, abs=1e-5)
    fallback = await classify(stub, "good film", "mars", strict_domain=False)
    assert fallback.domain_source == sentiment_pb2.DOMAIN_SOURCE_FALLBACK
    assert sentiment_pb2.WARNING_UNKNOWN_DOMAIN in fallback.warnings
    assert list(fallback.scores) == list(inferred.scores)
    for odd in ("IMDB", " imdb", "imdb\0"):  # names are compared as they are
        assert (await classify(stub, "good", odd)).domain_source == sentiment_pb2.DOMAIN_SOURCE_FALLBACK


async def test_a_label_that_the_domain_never_had_is_warned_of(stub: Any) -> None:
    for domain, usual in (("imdb", ("positive",)), ("tweets", ("negative", "neutral", "positive"))):
        for text in ("good film", "bad", "a dull plot", "the"):
            result = await classify(stub, text, domain)
            warned = sentiment_pb2.WARNING_LABEL_OUTSIDE_DOMAIN in result.warnings
            assert warned is (result.label not in usual)


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        "a\0b",
        "😀" * 50,
        "مرحبا بالعالم",
        "\u202egood film",
        "x" * 60_000,
        "\ufeffgood",
        "e\u0301" * 100,
        "\ud7ff",
    ],
    ids=["null", "inner null", "emoji", "right to left", "override", "one word", "bom", "marks", "edge"],
)
async def test_odd_texts_are_answered_or_refused_for_what_they_are(stub: Any, text: str) -> None:
    [result] = (await stub.BatchClassify(batch(text))).results
    if result.HasField("error"):
        assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        return
    assert result.result.score > 0
    assert all(0 <= token.start <= token.end <= len(text) for token in result.result.tokens)


def batch(text: str) -> sentiment_pb2.BatchClassifyRequest:
    item = sentiment_pb2.BatchItem(text=text)
    return sentiment_pb2.BatchClassifyRequest(items=[item], options=Options(explain=True))
