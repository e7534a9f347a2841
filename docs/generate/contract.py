"""The wire contract: services, messages and enums with their comments, out of the .proto files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2 as d

from docs.generate import tables

ROOT = Path(__file__).resolve().parents[2]
SERVICES, MESSAGES, ENUMS, INNER, METHODS, VALUES = 6, 4, 5, 2, 2, 2  # field numbers in descriptor.proto
Comments = dict[tuple[int, ...], str]


def write() -> str:
    """docs/reference/protos.md."""
    sections = [section for file in described() for section in _file(file)]
    return tables.page(
        "The wire contract",
        "Package `stratified.v1`, one file a service. A running server tells the same by reflection. "
        "[Serving](../serving.md) has the statuses, limits and promises.",
        *sections,
    )


def described() -> list[d.FileDescriptorProto]:
    """The project's .proto files with their comments; needs grpcio-tools."""
    from grpc_tools import protoc

    names = sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "protos").rglob("stratified/v1/*.proto")
    )
    shared = [f"-I{files('grpc_tools') / '_proto'}", *(f"-I{place}" for place in _google())]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.pb"
        flags = [f"-I{ROOT}", *shared, "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *flags, *names]) != 0:
            raise ValueError(f"protoc refuses {', '.join(names)}; its own message says why")
        return list(d.FileDescriptorSet.FromString(out.read_bytes()).file)


def _google() -> list[Path]:
    """Where google/rpc/*.proto lies: beside its generated code."""
    import google.rpc

    return [Path(place).parents[1] for place in google.rpc.__path__]


def _file(file: d.FileDescriptorProto) -> Iterator[str]:
    told: Comments = {
        tuple(part.path): part.leading_comments.strip() for part in file.source_code_info.location
    }
    for n, service in enumerate(file.service):
        yield f"## {service.name}\n\n{told.get((SERVICES, n), '')}"
        rows = [
            _method(method, told.get((SERVICES, n, METHODS, m), ""))
            for m, method in enumerate(service.method)
        ]
        yield tables.table(("RPC", "takes", "gives", "meaning"), rows)
    for n, message in enumerate(file.message_type):
        yield f"### {message.name}\n\n{told.get((MESSAGES, n), '')}"
        fields = [
            _field(field, told.get((MESSAGES, n, INNER, m), "")) for m, field in enumerate(message.field)
        ]
        if fields:
            yield tables.table(("field", "number", "type", "meaning"), fields)
    for n, enum in enumerate(file.enum_type):
        yield f"### {enum.name}\n\n{told.get((ENUMS, n), '')}"
        values = [
            (tables.code(value.name), str(value.number), told.get((ENUMS, n, VALUES, m), ""))
            for m, value in enumerate(enum.value)
        ]
        yield tables.table(("value", "number", "meaning"), values)


def _method(method: d.MethodDescriptorProto, told: str) -> tuple[str, str, str, str]:
    takes = ("stream of " if method.client_streaming else "") + _link(method.input_type)
    gives = ("stream of " if method.server_streaming else "") + _link(method.output_type)
    return tables.code(method.name), takes, gives, told


def _field(field: d.FieldDescriptorProto, told: str) -> tuple[str, str, str, str]:
    kind = _link(field.type_name) if field.type_name else d.FieldDescriptorProto.Type.Name(field.type)
    kind = kind.removeprefix("TYPE_").lower() if not field.type_name else kind
    many = "repeated " if field.label == d.FieldDescriptorProto.LABEL_REPEATED else ""
    optional = "optional " if field.proto3_optional else ""
    return tables.code(field.name), str(field.number), f"{many}{optional}{kind}", told


def _link(name: str) -> str:
    short = name.rsplit(".", 1)[1]
    if name.startswith(".stratified.v1.") and not short.endswith("Entry"):
        return f"[{short}](#{short.lower()})"
    return "map" if short.endswith("Entry") else name.lstrip(".")
