"""Texts and scores as tensors of the Open Inference Protocol, both ways; it knows no model.

BYTES are elements of any length, here texts in UTF-8; a raw element is its length as four bytes, the least
significant one first, and then its bytes. FP32 raw is four bytes an element.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from protos.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from serving.errors import InvalidRequest
from serving.types import Item

TEXT, DOMAIN, BYTES, FP32 = "text", "domain", "BYTES", "FP32"
INPUTS = (TEXT, DOMAIN)
PREFIX = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output: texts or numbers, row by row, and what is told of them."""

    name: str
    shape: tuple[int, ...]
    texts: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    notes: Mapping[str, str] | None = None

    @property
    def datatype(self) -> str:
        """As the protocol names it."""
        return FP32 if self.numbers else BYTES


def items_of(request: ModelInferRequest, *, most: int) -> list[Item]:
    """The texts with their domains.

    Raises `InvalidRequest` for tensors that are none of ours, for shapes and contents that do not agree, and
    for more than `most` texts.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; send one for each",
            field="raw_input_contents",
        )
    columns: dict[str, list[str]] = {}
    for place, tensor in enumerate(request.inputs):
        path = f"inputs[{place}]"
        if tensor.name not in INPUTS or tensor.name in columns:
            raise InvalidRequest(
                f"{path} is {_short(tensor.name)}; send {TEXT!r} once, and {DOMAIN!r} at most once",
                field=f"{path}.name",
            )
        columns[tensor.name] = _texts(tensor, raw[place] if raw else None, path, most)
    return _zipped(columns)


def response_of(tensors: Sequence[Tensor], *, raw: bool) -> ModelInferResponse:
    """The tensors as a reply without names: typed contents, or raw ones."""
    response = ModelInferResponse()
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in (tensor.notes or {}).items():
            output.parameters[name].string_param = value
        data = [text.encode("utf-8") for text in tensor.texts]
        if raw:
            packed = b"".join(PREFIX.pack(len(entry)) + entry for entry in data)
            numbers = struct.pack(f"<{len(tensor.numbers)}f", *tensor.numbers)
            response.raw_output_contents.append(packed + numbers)
        else:
            output.contents.bytes_contents.extend(data)
            output.contents.fp32_contents.extend(tensor.numbers)
    return response


def _texts(tensor: ModelInferRequest.InferInputTensor, raw: bytes | None, path: str, most: int) -> list[str]:
    if tensor.datatype != BYTES:
        kind = _short(tensor.datatype)
        raise InvalidRequest(f"{path} has datatype {kind}; send {BYTES}", field=f"{path}.datatype")
    shape = tuple(tensor.shape)
    if not shape or min(shape) < 1 or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise InvalidRequest(
            f"{path} has shape {list(shape[:8])}; send [N] or [N, 1] with N of at least 1",
            field=f"{path}.shape",
        )
    count = prod(shape)
    if count > most:
        raise InvalidRequest(
            f"{path} has {count} elements, above this server's {most} a call; send several calls",
            field=f"{path}.shape",
        )
    if raw is not None and tensor.HasField("contents"):
        raise InvalidRequest(
            f"{path} has contents, and raw_input_contents is there too; send one of them",
            field=f"{path}.contents",
        )
    elements = list(tensor.contents.bytes_contents if raw is None else _unpacked(raw, path))
    if len(elements) != count:
        raise InvalidRequest(
            f"{path} has {len(elements)} elements, and its shape says {count}; make them agree",
            field=f"{path}.shape",
        )
    return [_decoded(element, f"{path}[{place}]") for place, element in enumerate(elements)]


def _unpacked(raw: bytes, path: str) -> Iterator[bytes]:
    place = 0
    while place < len(raw):
        begin = place + PREFIX.size
        end = begin + (PREFIX.unpack_from(raw, place)[0] if begin <= len(raw) else 0)
        if begin > len(raw) or end > len(raw):
            raise InvalidRequest(
                f"{path} ends within an element, at byte {len(raw)}; send each as its length in 4 bytes, "
                "little-endian, and its bytes",
                field="raw_input_contents",
            )
        yield raw[begin:end]
        place = end


def _decoded(element: bytes, path: str) -> str:
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{path} is no UTF-8 from byte {error.start} on; encode it so", field=path
        ) from None


def _zipped(columns: Mapping[str, list[str]]) -> list[Item]:
    texts = columns.get(TEXT)
    if texts is None:
        raise InvalidRequest(f"the input {TEXT!r} is missing; send it as {BYTES} [N]", field="inputs")
    domains = columns.get(DOMAIN, [""])
    if len(domains) == 1:
        domains = domains * len(texts)
    if len(domains) != len(texts):
        raise InvalidRequest(
            f"{len(domains)} domains for {len(texts)} texts; send one for each, or one for all",
            field="inputs",
        )
    return [Item(text, domain) for text, domain in zip(texts, domains, strict=True)]


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:40] + "…")
