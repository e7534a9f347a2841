"""results.json: every field, out of its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate import tables

Schema = Mapping[str, Any]


def write() -> str:
    """docs/reference/results.md."""
    from trainer_job.results import load_schema

    schema = load_schema()
    parts = [f"## {title}\n\n{_table(part)}" for title, part in _parts(schema)]
    return tables.page(
        "results.json",
        "`stratified-train schema` prints the schema itself (JSON Schema). Keys are only "
        "ever added within a schema version.",
        *parts,
    )


def _parts(schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield "The record", schema
    yield from schema["$defs"].items()


def _table(schema: Schema) -> str:
    told = schema.get("description", "")
    rows = list(_rows(schema, "")) or [("(the value itself)", _kind(schema), "")]
    return (f"{told}\n\n" if told else "") + tables.table(("field", "value", "meaning"), rows)


def _rows(schema: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    for name, part in schema.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        yield tables.code(place), _kind(part), part.get("description", "")
        yield from _rows(part, place)
        items = part.get("items")
        if isinstance(items, dict):
            yield from _rows(items, f"{place}[]")


def _kind(part: Schema) -> str:  # noqa: PLR0911 - one line a kind of schema
    """What a value is: a type, one of a few words, or a part with a table of its own."""
    if "$ref" in part:
        name = part["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name})"
    if "enum" in part:
        return ", ".join(tables.code(value) for value in part["enum"])
    if "const" in part:
        return tables.code(part["const"])
    if choices := part.get("anyOf") or part.get("oneOf"):
        return " or ".join(_kind(choice) for choice in choices)
    kind = part.get("type", "any")
    if kind == "array":
        return f"list of {_kind(part['items'])}" if isinstance(part.get("items"), dict) else "list"
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"name → {_kind(part['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
