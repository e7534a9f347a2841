"""results.json field by field, as a Markdown page made from its schema, so that the two cannot drift apart.

    python -m trainer_job.fields > docs/reference/results.md

It knows JSON Schema's words and nothing of what the fields mean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trainer_job.results import load_schema

Schema = Mapping[str, Any]


def describe(schema: Schema) -> str:
    """The page: a table for the record, then one for each part that is named in `$defs`."""
    lines = [
        f"# {schema['title']}",
        "",
        "<!-- Written by `python -m trainer_job.fields`; do not edit. -->",
        "",
        str(schema["description"]),
        "",
        *table(schema, "record"),
    ]
    for name, part in schema["$defs"].items():
        lines += ["", f"## {name}", "", *table(part, name)]
    return "\n".join(lines) + "\n"


def table(part: Schema, title: str) -> list[str]:
    """One row a field, nested ones by their dotted name. A part without fields is described in words."""
    rows = list(fields(part))
    if not rows:
        return [f"{title}: {kind(part)}."]
    return ["| field | type | meaning |", "|:--|:--|:--|", *(f"| {' | '.join(row)} |" for row in rows)]


def fields(part: Schema, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, type, meaning) of each field, depth first; a field that may be missing is marked by `?`."""
    required = set(part.get("required", ()))
    for name, field in part.get("properties", {}).items():
        mark = "" if name in required or not required else "?"
        yield f"`{prefix}{name}`{mark}", kind(field), str(field.get("description", "")).replace("|", "\\|")
        yield from fields(field, f"{prefix}{name}.")
        items = field.get("items")
        if isinstance(items, Mapping):
            yield from fields(items, f"{prefix}{name}[].")


def kind(field: Schema) -> str:
    """The type in a few words, with a link to the part that it refers to."""
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name})"
    choices = field.get("anyOf") or field.get("oneOf")
    if choices:
        return " or ".join(kind(choice) for choice in choices)
    if "const" in field:
        return f"always {field['const']!r}"
    if "enum" in field:
        return ", ".join("null" if value is None else f"`{value}`" for value in field["enum"])
    return _plain(field)


def _plain(field: Schema) -> str:
    """A type by its name, with what it holds."""
    kinds = field.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    shown = " or ".join(str(name) for name in names)
    items, values = field.get("items"), field.get("additionalProperties")
    if "array" in names and isinstance(items, Mapping):
        return f"{shown} of {kind(items)}"
    if "object" in names and isinstance(values, Mapping) and values:
        return f"{shown}: name to {kind(values)}"
    return shown


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(describe(load_schema()))


if __name__ == "__main__":
    main()
