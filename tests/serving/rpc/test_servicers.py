"""The service through stock stubs over loopback: every RPC, every refusal that a caller can cause."""

from __future__ import annotations

import grpc
import pytest

from protos.stratified.v1 import model_pb2, sentiment_pb2
from serving.calls import failure_of
from serving.engines.fake import FakeEngine, FakeSource
from tests.serving.conftest import Running, Start

Request, Batch, BatchItem = (
    sentiment_pb2.ClassifyRequest,
    sentiment_pb2.BatchClassifyRequest,
    sentiment_pb2.BatchItem,
)
Options, Streamed = sentiment_pb2.ClassifyOptions, sentiment_pb2.ClassifyStreamRequest


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a call of grpc.aio
    return caught.value


async def test_classify_answers_with_everything_that_was_asked_for(start: Start) -> None:
    running = await start()
    options = Options(top_k=2, raw_logits=True, explain=True, timings=True)
    reply = await running.sentiment.Classify(Request(text="good film", domain="imdb", options=options))
    result = reply.result
    assert result.label == result.scores[0].label
    assert len(result.scores) == 2
    assert len(result.logits) == 3
    assert (result.domain, result.domain_source) == ("imdb", sentiment_pb2.DOMAIN_SOURCE_GIVEN)
    assert [token.text for token in result.tokens] == ["[CLS]", "good", "film", "[SEP]"]
    assert sum(entry.occupancy for entry in result.strata) == pytest.approx(1)
    assert (result.token_count, result.original_token_count, result.truncated) == (4, 4, False)
    assert result.model.name == "none"
    assert (result.timings.batch_items, result.timings.batch_tokens) == (1, 4)
    assert result.timings.total.ToNanoseconds() >= result.timings.inference.ToNanoseconds() > 0


async def test_classify_leaves_out_what_was_not_asked_for(start: Start) -> None:
    running = await start()
    result = (await running.sentiment.Classify(Request(text="good film"))).result
    assert len(result.scores) == 3
    assert (len(result.logits), len(result.tokens), result.HasField("timings")) == (0, 0, False)
    assert result.domain_source == sentiment_pb2.DOMAIN_SOURCE_INFERRED


REJECT, UNKNOWN = Options(truncation=4), Options(truncation=9)  # type: ignore[arg-type]  # numbers are allowed
STRICT = Options(strict_domain=True)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (Request(text=""), "INVALID_ARGUMENT", "EMPTY_TEXT", "text"),
        (Request(text=" \n\t "), "INVALID_ARGUMENT", "EMPTY_TEXT", "text"),
        (Request(text="x" * 70_000), "INVALID_ARGUMENT", "TEXT_TOO_LONG", "text"),
        (Request(text="a " * 50, options=REJECT), "INVALID_ARGUMENT", "TEXT_TOO_LONG", "text"),
        (Request(text="a", options=UNKNOWN), "INVALID_ARGUMENT", "INVALID_REQUEST", "options.truncation"),
        (Request(text="a", options=Options(top_k=4)), "INVALID_ARGUMENT", "INVALID_REQUEST", "options.top_k"),
        (Request(text="a", domain="mars", options=STRICT), "INVALID_ARGUMENT", "UNKNOWN_DOMAIN", "domain"),
        (Request(text="a", model="mars"), "NOT_FOUND", "MODEL_NOT_FOUND", ""),
        (Request(text="a", model="routing"), "UNAVAILABLE", "MODEL_NOT_LOADED", ""),
    ],
)
async def test_bad_input_is_one_line_with_its_status(
    start: Start, request_: sentiment_pb2.ClassifyRequest, code: str, reason: str, field: str
) -> None:
    running = await start()
    error = await refused(running.sentiment.Classify(request_))
    failure = failure_of_error(error)
    assert (error.code().name, failure.reason, failure.field) == (code, reason, field)
    assert "\n" not in str(error.details())
    assert failure.request_id


def failure_of_error(error: grpc.aio.AioRpcError):  # type: ignore[no-untyped-def]  # Failure
    from google.rpc import status_pb2

    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    return failure_of(status_pb2.Status.FromString(details))


async def test_an_unknown_domain_is_answered_with_a_warning(start: Start) -> None:
    running = await start()
    result = (await running.sentiment.Classify(Request(text="good", domain="mars"))).result
    assert result.domain_source == sentiment_pb2.DOMAIN_SOURCE_FALLBACK
    assert sentiment_pb2.WARNING_UNKNOWN_DOMAIN in result.warnings
    plain = (await running.sentiment.Classify(Request(text="good"))).result
    assert list(result.scores) == list(plain.scores)


async def test_a_strict_server_refuses_it_unless_the_request_is_lenient(start: Start) -> None:
    running = await start(strict_domain=True)
    error = await refused(running.sentiment.Classify(Request(text="good", domain="mars")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    await running.sentiment.Classify(
        Request(text="good", domain="mars", options=Options(strict_domain=False))
    )


async def test_a_batch_answers_in_order_and_a_bad_item_costs_nobody_else(start: Start) -> None:
    running = await start()
    running.engine.raise_on.add(FakeTokens.of("poison"))
    items = [
        BatchItem(id="a", text="good"),
        BatchItem(id="b", text="   "),
        BatchItem(id="c", text="poison"),
        BatchItem(id="d", text="bad", domain="tweets"),
        BatchItem(id="d", text="bad", domain="mars"),
    ]
    reply = await running.sentiment.BatchClassify(Batch(items=items))
    assert [result.id for result in reply.results] == ["a", "b", "c", "d", "d"]
    kinds = [result.WhichOneof("outcome") for result in reply.results]
    assert kinds == ["result", "error", "error", "result", "result"]
    empty, poison = reply.results[1].error, reply.results[2].error
    assert failure_of(empty).field == "items[1].text"
    assert (empty.code, poison.code) == (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        grpc.StatusCode.INTERNAL.value[0],
    )
    alone = (await running.sentiment.Classify(Request(text="good"))).result
    assert list(reply.results[0].result.scores) == list(alone.scores)
    assert running.sample("stratified_item_errors_total", reason="EMPTY_TEXT") == 1


class FakeTokens:
    """Ids as the fake encoder gives them."""

    @staticmethod
    def of(word: str) -> int:
        from serving.engines.fake import FakeEncoder
        from serving.types import Truncation

        return FakeEncoder().encode(word, Truncation.HEAD).ids[1]


@pytest.mark.parametrize(
    ("batch", "settings", "reason"),
    [
        (Batch(), {}, "INVALID_REQUEST"),
        (Batch(items=[BatchItem(text="a")] * 3), {"max_items": 2}, "BATCH_TOO_LARGE"),
        (Batch(items=[BatchItem(text="a b c d")] * 3), {"queue_tokens": 16}, "BATCH_TOO_LARGE"),
        (Batch(items=[BatchItem(text="a")], options=Options(top_k=99)), {}, "INVALID_REQUEST"),
    ],
)
async def test_a_batch_fails_as_a_whole_for_faults_of_the_whole(
    start: Start, batch: sentiment_pb2.BatchClassifyRequest, settings: dict[str, int], reason: str
) -> None:
    running = await start(**settings)
    error = await refused(running.sentiment.BatchClassify(batch))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure_of_error(error).reason == reason


async def test_a_batch_of_nothing_but_bad_items_is_answered_without_the_engine(start: Start) -> None:
    running = await start()
    reply = await running.sentiment.BatchClassify(Batch(items=[BatchItem(text=" ")] * 2))
    assert [result.WhichOneof("outcome") for result in reply.results] == ["error", "error"]
    assert running.engine.batches == []


async def test_several_models_answer_side_by_side(start: Start) -> None:
    running = await start(FakeSource("none", "routing"), load="all")
    for name in ("none", "routing"):
        assert (await running.sentiment.Classify(Request(text="a", model=name))).result.model.name == name
        info = await running.models.GetModelInfo(model_pb2.GetModelInfoRequest(model=name))
        assert (info.model.name, info.model.is_default) == (name, name == "none")


async def test_list_models_tells_what_failed_and_why(start: Start) -> None:
    running = await start(FakeSource("none", "moe", "layers", broken=("moe",)), load="none,moe")
    reply = await running.models.ListModels(model_pb2.ListModelsRequest())
    states = {
        entry.name: model_pb2.ModelState.Name(entry.state).removeprefix("MODEL_STATE_")
        for entry in reply.models
    }
    assert states == {"none": "READY", "moe": "FAILED", "layers": "AVAILABLE"}
    assert reply.default_model == "none"
    assert "broken" in next(entry.error for entry in reply.models if entry.name == "moe")
    error = await refused(running.sentiment.Classify(Request(text="a", model="moe")))
    assert failure_of_error(error).reason == "MODEL_NOT_READY"


async def test_model_info_carries_limits(start: Start) -> None:
    running = await start(max_items=7)
    reply = await running.models.GetModelInfo(model_pb2.GetModelInfoRequest())
    assert (reply.limits.max_items, reply.limits.default_truncation) == (7, "HEAD")
    assert [domain.name for domain in reply.model.domains] == ["imdb", "tweets"]
    assert list(reply.model.domains[0].labels) == ["negative", "positive"]


async def test_before_a_model_is_loaded_calls_are_unavailable(start: Start) -> None:
    running = await start(loaded=False)
    error = await refused(running.sentiment.Classify(Request(text="a")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert failure_of_error(error).reason == "MODEL_NOT_READY"


async def test_handlers_stay_short() -> None:
    import inspect

    from serving.rpc import servicers

    for kind in (servicers.SentimentServicer, servicers.ModelServicer):
        for name, handler in inspect.getmembers(kind, inspect.isfunction):
            if name[0].isupper() and handler.__module__ == servicers.__name__:
                body = inspect.getsource(handler).split('"""')[-1].strip().splitlines()
                assert len(body) <= 18, (name, len(body))


async def test_a_fake_engine_is_what_stands_behind_these_tests(start: Start) -> None:
    running: Running = await start()
    assert isinstance(running.engine, FakeEngine)
