"""The schema of results.json: every field is described, and kept examples of each end are valid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from trainer_job.results import load_schema, validate

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


def every_field(part: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in part.get("properties", {}).items():
        yield f"{place}/{name}", field
        yield from every_field(field, f"{place}/{name}")
    for name, field in part.get("$defs", {}).items():
        yield from every_field(field, name)


def test_every_field_has_a_description() -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    found = list(every_field(schema))
    assert len(found) > 150
    assert [place for place, field in found if not field.get("description")] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_kept_examples_are_valid(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["status"] == path.stem
    validate(record)


def keys_of(value: Any) -> Iterator[str]:
    for name, item in value.items() if isinstance(value, dict) else ():
        yield name
        yield from keys_of(item)
    for item in value if isinstance(value, list) else ():
        yield from keys_of(item)


def test_kept_examples_have_every_field() -> None:
    """Fails after a new field: `python -m tests.trainer_job.keep_examples` makes them again."""
    had = {name for path in EXAMPLES for name in keys_of(json.loads(path.read_text(encoding="utf-8")))}
    lacking = {place for place, _ in every_field(load_schema()) if place.rpartition("/")[2] not in had}
    assert lacking == set()


def test_the_complete_example_has_the_figures_of_its_units() -> None:
    record = json.loads(EXAMPLES[0].read_text(encoding="utf-8"))
    for unit in record["units"]:
        assert unit["test"]["domain_inference"]["confusion"]
        assert set(unit["calibration"]["out_of_domain"]["left_out"]) >= {"energy", "mahalanobis"}


def test_there_is_an_example_of_each_end() -> None:
    assert [path.stem for path in EXAMPLES] == ["complete", "partial", "preempted"]
