"""What may be set: the settings of the service and every key of a sweep's YAML, out of their models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate import tables

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}


def write_settings() -> str:
    """docs/reference/settings.md."""
    from serving.settings import PREFIX, Settings

    rows = [
        (
            tables.code(f"--{name.replace('_', '-')}"),
            tables.code(PREFIX + name.upper()),
            allowed(field),
            default(field),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]
    return tables.page(
        "Settings of the service",
        "Each setting of `stratified-serve` is a flag and a variable; the flag wins. Unknown flags "
        "are refused, and a "
        "value that cannot work ends the start with exit code 2 and one line.",
        tables.table(("flag", "variable", "values", "default", "meaning"), rows),
    )


def write_keys() -> str:
    """docs/reference/yaml.md."""
    from trainer_job.config import RunConfig

    return tables.page(
        "Keys of a sweep's YAML",
        "What `stratified-train --config FILE` may say. Later wins: the file, variables such as "
        "`STRATIFIED_TRAIN__TRAINING__EPOCHS=3`, and `--set training.epochs=3`. Unknown keys are refused.",
        *_sections(RunConfig, ""),
    )


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """A table for this section, then those of the sections in it."""
    yield f"## {path or 'The top level'}"
    yield inspect.cleandoc(model.__doc__ or "")
    below: list[tuple[str, type[BaseModel]]] = []
    rows = []
    for name, field in model.model_fields.items():
        inner = list(_models(field.annotation))
        place = f"{path}.{name}" if path else name
        many = get_origin(field.annotation) is dict
        below += [(_place(place, part, many=many, one=len(inner) == 1), part) for part in inner]
        shown = "section" if inner else allowed(field)
        rows.append((tables.code(name), shown, "" if inner else default(field), field.description or ""))
    yield tables.table(("key", "values", "default", "meaning"), rows)
    for place, part in below:
        yield from _sections(part, place)


def _place(place: str, model: type[BaseModel], *, many: bool, one: bool) -> str:
    place = f"{place}.NAME" if many else place
    kind = model.model_fields.get("kind")
    return place if one or kind is None else f"{place}, kind: {get_args(kind.annotation)[0]}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    parts = get_args(annotation)
    for part in parts[:1] if get_origin(annotation) is Annotated else parts:
        yield from _models(part)


def allowed(field: FieldInfo) -> str:
    """The values that a field takes, in words of YAML."""
    shown = _type(field.annotation)
    limits = [f"{sign} {value:g}" for limit in field.metadata for sign, value in _bounds(limit)]
    return ", ".join([shown, *limits])


def _bounds(limit: Any) -> Iterator[tuple[str, float]]:
    for name, sign in BOUNDS.items():
        if (value := getattr(limit, name, None)) is not None:
            yield sign, value


def _type(annotation: Any) -> str:  # noqa: PLR0911 - one line a kind of type
    """A type as a reader of YAML thinks of it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return ", ".join(tables.code(part) for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts)
    if origin in (tuple, list):
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"{_type(parts[0])} → {_type(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(tables.code(member.value) for member in annotation)
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "null"}
    return names.get(annotation, getattr(annotation, "__name__", "value").lower())


def default(field: FieldInfo) -> str:
    """The default as YAML writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple | list):
        return tables.code(f"[{', '.join(str(part) for part in value)}]")
    if isinstance(value, dict):
        return tables.code("{" + ", ".join(f"{key}: {part}" for key, part in value.items()) + "}")
    plain = (
        {None: "null", True: "true", False: "false"}.get(value)
        if not isinstance(value, int | float) or (isinstance(value, bool))
        else None
    )
    return tables.code(plain or re.sub(r"^$", '""', str(value)))
