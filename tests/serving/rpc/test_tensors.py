"""Tensors of the Open Inference Protocol in and out: every disagreement is one line that names its place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.inference.open_inference_pb2 import ModelInferRequest
from serving.errors import InvalidRequest
from serving.rpc.tensors import Tensor, items_of, response_of
from serving.types import Item

Input = ModelInferRequest.InferInputTensor


def packed(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def typed(name: str, *texts: str, shape: list[int] | None = None, datatype: str = "BYTES") -> Input:
    tensor = Input(name=name, datatype=datatype, shape=[len(texts)] if shape is None else shape)
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    return tensor


def bare(name: str, count: int) -> Input:
    return Input(name=name, datatype="BYTES", shape=[count])


@given(st.lists(st.text(), min_size=1, max_size=5), st.booleans())
def test_texts_come_as_they_were_sent_typed_or_raw(texts: list[str], raw: bool) -> None:
    domains = [f"d{place}" for place in range(len(texts))]
    request = ModelInferRequest()
    if raw:
        request.inputs.extend([bare("text", len(texts)), bare("domain", len(texts))])
        request.raw_input_contents.extend([packed(*texts), packed(*domains)])
    else:
        request.inputs.extend([typed("text", *texts), typed("domain", *domains)])
    assert items_of(request, most=5) == [Item(*pair) for pair in zip(texts, domains, strict=True)]


def test_one_domain_holds_for_all_and_a_column_is_a_row() -> None:
    request = ModelInferRequest(inputs=[typed("domain", "imdb"), typed("text", "a", "b", shape=[2, 1])])
    assert items_of(request, most=9) == [Item("a", "imdb"), Item("b", "imdb")]


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (ModelInferRequest(), "inputs", "'text' is missing"),
        (ModelInferRequest(inputs=[typed("txt", "a")]), "inputs[0].name", "'txt'"),
        (ModelInferRequest(inputs=[typed("text", "a")] * 2), "inputs[1].name", "once"),
        (ModelInferRequest(inputs=[typed("text", "a", datatype="FP32")]), "inputs[0].datatype", "BYTES"),
        (ModelInferRequest(inputs=[typed("text", "a", shape=[])]), "inputs[0].shape", r"\[N\]"),
        (ModelInferRequest(inputs=[typed("text", "a", shape=[-1])]), "inputs[0].shape", r"\[-1\]"),
        (ModelInferRequest(inputs=[typed("text", "a", shape=[1, 2])]), "inputs[0].shape", r"\[1, 2\]"),
        (ModelInferRequest(inputs=[typed("text", "a", shape=[1, 1, 1])]), "inputs[0].shape", r"\[N, 1\]"),
        (ModelInferRequest(inputs=[typed("text", "a", shape=[2])]), "inputs[0].shape", "says 2"),
        (ModelInferRequest(inputs=[typed("text", *"abcdef")]), "inputs[0].shape", "above this server's 5"),
        (ModelInferRequest(inputs=[bare("text", 2**40)]), "inputs[0].shape", "above"),
        (
            ModelInferRequest(inputs=[typed("text", *"abc"), typed("domain", *"de")]),
            "inputs",
            "2 domains for 3 texts",
        ),
        (
            ModelInferRequest(inputs=[typed("text", "a")], raw_input_contents=[packed("a")]),
            "inputs[0].contents",
            "one of them",
        ),
        (
            ModelInferRequest(inputs=[bare("text", 1)], raw_input_contents=[packed("a")] * 2),
            "raw_input_contents",
            "2 entries for 1 inputs",
        ),
        (
            ModelInferRequest(inputs=[bare("text", 1)], raw_input_contents=[packed("a")[:-1]]),
            "raw_input_contents",
            "ends within an element",
        ),
        (
            ModelInferRequest(inputs=[bare("text", 1)], raw_input_contents=[b"\x01\x00"]),
            "raw_input_contents",
            "ends within an element",
        ),
        (
            ModelInferRequest(inputs=[bare("text", 1)], raw_input_contents=[b"\x02\x00\x00\x00\xff\xfe"]),
            "inputs[0][0]",
            "no UTF-8",
        ),
    ],
)
def test_what_does_not_agree_is_named(request_: ModelInferRequest, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        items_of(request_, most=5)
    assert caught.value.field == field
    assert "\n" not in caught.value.message


def test_outputs_are_typed_or_raw_as_was_asked() -> None:
    tensors = [Tensor("label", (2,), texts=("a", "bé")), Tensor("scores", (1, 2), numbers=(0.25, 0.75))]
    reply = response_of(tensors, raw=False)
    assert [list(output.contents.bytes_contents) for output in reply.outputs] == [[b"a", "bé".encode()], []]
    assert list(reply.outputs[1].contents.fp32_contents) == [0.25, 0.75]
    assert not reply.raw_output_contents
    reply = response_of(tensors, raw=True)
    assert list(reply.raw_output_contents) == [packed("a", "bé"), struct.pack("<2f", 0.25, 0.75)]
    assert not any(output.HasField("contents") for output in reply.outputs)
    assert [(output.datatype, list(output.shape)) for output in reply.outputs] == [
        ("BYTES", [2]),
        ("FP32", [1, 2]),
    ]
