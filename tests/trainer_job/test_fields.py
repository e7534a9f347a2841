"""results.json is described field by field, out of the schema that it is validated against."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from trainer_job.fields import describe, fields, kind
from trainer_job.results import load_schema, validate

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


def every_field(part: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in part.get("properties", {}).items():
        yield f"{place}/{name}", field
        yield from every_field(field, f"{place}/{name}")
    for name, field in part.get("$defs", {}).items():
        yield from every_field(field, name)


def test_every_field_has_a_description_and_stands_in_the_page() -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    page = describe(schema)
    for place, field in every_field(schema):
        assert field.get("description"), place
        assert str(field["description"]).replace("|", "\\|") in page, place
    assert all(f"## {name}\n" in page for name in schema["$defs"])


def test_types_are_said_in_words() -> None:
    assert kind({"$ref": "#/$defs/unit"}) == "[unit](#unit)"
    assert kind({"type": ["number", "null"]}) == "number or null"
    assert kind({"type": "array", "items": {"type": "string"}}) == "array of string"
    assert kind({"type": "object", "additionalProperties": {"type": "integer"}}) == "object: name to integer"
    assert kind({"enum": ["a", None]}) == "`a`, null"
    assert kind({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]}) == "null or [x](#x)"
    assert kind({"const": 1}) == "always 1"


def test_nested_fields_are_named_by_their_path() -> None:
    part = {
        "required": ["a"],
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "integer", "description": "x|y"}}},
            "c": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "null"}}}},
        },
    }
    assert [row[0] for row in fields(part)] == ["`a`", "`a.b`", "`c`?", "`c[].d`"]
    assert next(row[2] for row in fields(part) if row[0] == "`a.b`") == "x\\|y"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_kept_examples_are_valid(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == path.stem
    validate(record)


def test_there_is_an_example_of_each_end() -> None:
    assert [path.stem for path in EXAMPLES] == ["complete", "partial", "preempted"]
