"""The Open Inference Protocol on a real server: by its own stub, and by Triton's client in a process of its
own (both bring messages of the same names, and one process holds each name once).
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec
from typing import Any

import grpc
import pytest

from protos.inference import open_inference_pb2, open_inference_pb2_grpc
from protos.stratified.v1 import sentiment_pb2
from serving.engines.fake import FakeSource
from tests.serving.conftest import Running, Start, counted
from tests.serving.rpc.test_servicers import FakeTokens, failure_of_error, refused
from tests.serving.rpc.test_tensors import bare, packed, typed
from tests.serving.test_lane import until

Infer = open_inference_pb2.ModelInferRequest
Output = Infer.InferRequestedOutputTensor


def stub(running: Running) -> Any:
    return open_inference_pb2_grpc.GRPCInferenceServiceStub(running.channel)


async def test_it_answers_as_the_service_does(start: Start) -> None:
    running = await start()
    reply = await stub(running).ModelInfer(
        Infer(id="7", inputs=[typed("text", "good film", "bad"), typed("domain", "imdb", "")])
    )
    assert (reply.model_name, reply.model_version, reply.id) == ("none", "0", "7")
    outputs = {output.name: output for output in reply.outputs}
    assert list(outputs) == ["label", "scores", "domain", "out_of_domain_score"]
    assert list(outputs["scores"].shape) == [2, 3]
    labels = outputs["scores"].parameters["labels"].string_param.split(",")
    for row, (text, domain) in enumerate((("good film", "imdb"), ("bad", ""))):
        same = await running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text=text, domain=domain))
        assert outputs["label"].contents.bytes_contents[row].decode() == same.result.label
        assert outputs["domain"].contents.bytes_contents[row].decode() == same.result.domain
        scores = dict(
            zip(labels, outputs["scores"].contents.fp32_contents[3 * row : 3 * row + 3], strict=True)
        )
        assert scores == {entry.label: entry.score for entry in same.result.scores}


async def test_only_what_is_asked_for_comes_back_and_raw_begets_raw(start: Start) -> None:
    running = await start()
    request = Infer(inputs=[bare("text", 1)], raw_input_contents=[packed("good")])
    request.outputs.extend([Output(name="scores"), Output(name="label")])
    reply = await stub(running).ModelInfer(request)
    assert [output.name for output in reply.outputs] == ["scores", "label"]
    assert next(len(raw) for raw in reply.raw_output_contents) == 12


async def test_metadata_and_readiness(start: Start) -> None:
    running = await start(FakeSource("none", "moe", "layers"), load="none,moe")
    calls = stub(running)
    assert (await calls.ServerLive(open_inference_pb2.ServerLiveRequest())).live
    assert (await calls.ServerReady(open_inference_pb2.ServerReadyRequest())).ready
    server = await calls.ServerMetadata(open_inference_pb2.ServerMetadataRequest())
    assert server.name == "stratified-sentiment"
    model = await calls.ModelMetadata(open_inference_pb2.ModelMetadataRequest(name="moe"))
    assert (model.name, list(model.versions), model.platform) == ("moe", ["0"], "stratified_fake")
    shapes = {tensor.name: list(tensor.shape) for tensor in (*model.inputs, *model.outputs)}
    assert shapes["text"] == shapes["label"] == [-1]
    assert shapes["scores"] == [-1, 3]
    for name, version, ready in (
        ("", "", True),
        ("moe", "0", True),
        ("moe", "9", False),
        ("layers", "", False),
    ):
        request = open_inference_pb2.ModelReadyRequest(name=name, version=version)
        assert (await calls.ModelReady(request)).ready is ready, (name, version)
    error = await refused(calls.ModelReady(open_inference_pb2.ModelReadyRequest(name="mars")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_without_a_model_is_live_and_not_ready(start: Start) -> None:
    running = await start(loaded=False)
    calls = stub(running)
    assert (await calls.ServerLive(open_inference_pb2.ServerLiveRequest())).live
    assert not (await calls.ServerReady(open_inference_pb2.ServerReadyRequest())).ready
    assert not (await calls.ModelReady(open_inference_pb2.ModelReadyRequest())).ready


def parameters(**values: object) -> Infer:
    request = Infer(inputs=[typed("text", "a " * 50)])
    for name, value in values.items():
        kind = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(request.parameters[name], kind, value)
    return request


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        (Infer(), "INVALID_ARGUMENT", "INVALID_REQUEST", "inputs"),
        (Infer(model_name="mars"), "NOT_FOUND", "MODEL_NOT_FOUND", ""),
        (Infer(model_name="routing"), "UNAVAILABLE", "MODEL_NOT_LOADED", ""),
        (Infer(model_version="9"), "NOT_FOUND", "MODEL_NOT_FOUND", ""),
        (Infer(outputs=[Output(name="logits")]), "INVALID_ARGUMENT", "INVALID_REQUEST", "outputs[0].name"),
        (Infer(outputs=[Output(name="label")] * 2), "INVALID_ARGUMENT", "INVALID_REQUEST", "outputs[1].name"),
        (Infer(inputs=[typed("text", "a", " ")]), "INVALID_ARGUMENT", "EMPTY_TEXT", "text[1]"),
        (Infer(inputs=[typed("text", "poison")]), "INTERNAL", "ITEM_FAILED", ""),
        (parameters(truncation="reject"), "INVALID_ARGUMENT", "TEXT_TOO_LONG", "text[0]"),
        (parameters(truncation="half"), "INVALID_ARGUMENT", "INVALID_REQUEST", "parameters.truncation"),
        (parameters(strict_domain="yes"), "INVALID_ARGUMENT", "INVALID_REQUEST", "parameters.strict_domain"),
    ],
)
async def test_refusals_have_the_statuses_of_the_service(
    start: Start, request_: Infer, code: str, reason: str, field: str
) -> None:
    running = await start()
    running.engine.raise_on.add(FakeTokens.of("poison"))
    error = await refused(stub(running).ModelInfer(request_))
    failure = failure_of_error(error)
    assert (error.code().name, failure.reason, failure.field) == (code, reason, field)


async def test_parameters_of_other_servers_are_passed_over(start: Start) -> None:
    running = await start()
    await stub(running).ModelInfer(parameters(priority="high", strict_domain=True))


async def test_overload_is_refused_with_pushback_and_counted(start: Start) -> None:
    running = await start(queue_tokens=16)
    running.engine.gate.clear()
    text = "a b c d e f g h i"
    calls = [stub(running).ModelInfer(Infer(inputs=[typed("text", text)]))]
    await until(lambda: running.engine.started == 1)
    calls += [stub(running).ModelInfer(Infer(inputs=[typed("text", text)]))]
    await until(lambda: running.sample("stratified_queue_items", model="none") == 1)
    error = await refused(stub(running).ModelInfer(Infer(inputs=[typed("text", text)])))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(str(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])) >= 50
    running.engine.gate.set()
    await asyncio.gather(*calls)
    labels = {
        "grpc_type": "unary",
        "grpc_service": "inference.GRPCInferenceService",
        "grpc_method": "ModelInfer",
    }
    await counted(running, 2, **labels, grpc_code="OK")
    await counted(running, 1, **labels, grpc_code="RESOURCE_EXHAUSTED")
    assert running.sample("grpc_server_started_total", **{**labels, "grpc_method": "ServerLive"}) == 0


TRITON = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
text = triton.InferInput("text", [2], "BYTES")
text.set_data_from_numpy(np.array(["good film", "schön, aber lang"], dtype=object))
domain = triton.InferInput("domain", [2], "BYTES")
domain.set_data_from_numpy(np.array(["imdb", ""], dtype=object))
wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("scores")]
result = client.infer("none", [text, domain], outputs=wanted, request_id="r1", client_timeout=20)
told = {
    "live": client.is_server_live(), "ready": client.is_server_ready(),
    "model": client.is_model_ready("none"), "server": client.get_server_metadata().name,
    "inputs": [tensor.name for tensor in client.get_model_metadata("none").inputs],
    "labels": [label.decode() for label in result.as_numpy("label")],
    "scores": result.as_numpy("scores").tolist(), "id": result.get_response().id,
}
try:
    client.infer("mars", [text])
except triton.InferenceServerException as error:
    told["error"] = error.status()
print(json.dumps(told))
"""


@pytest.mark.skipif(
    find_spec("tritonclient") is None, reason="tritonclient (requirements-clients.txt) is not here"
)
async def test_tritons_client_classifies_unchanged(start: Start) -> None:
    running = await start()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TRITON, running.target, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    told = json.loads(output)
    assert told["live"]
    assert told["ready"]
    assert told["model"]
    assert (told["server"], told["inputs"]) == ("stratified-sentiment", ["text", "domain"])
    assert (told["id"], told["error"]) == ("r1", "StatusCode.NOT_FOUND")
    same = await running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="good film", domain="imdb"))
    assert told["labels"][0] == same.result.label
    assert max(told["scores"][0]) == pytest.approx(same.result.score)
    assert len(told["labels"]) == len(told["scores"]) == 2
