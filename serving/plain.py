"""Answers as plain JSON values, under the names of the wire contract; it knows no wire and prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from serving.calls import Answer, Failure
from serving.types import Classification, Item


def row_json(item: Item, answer: Answer) -> dict[str, Any]:
    """An item's id with its classification, or with its error."""
    if isinstance(answer, Failure):
        return {"id": item.id, "error": _plain(asdict(answer))}
    return {"id": item.id, **result_json(answer)}


def result_json(answer: Answer) -> dict[str, Any]:
    """An answer as plain values."""
    values: dict[str, Any] = _plain(asdict(answer))
    if isinstance(answer, Classification):
        values["truncated"] = answer.truncated
        values["scores"] = [{"label": label, "score": score} for label, score in answer.scores]
        values["domain_scores"] = [{"domain": name, "score": score} for name, score in answer.domain_scores]
        values["strata"] = _shares(answer.strata)
        for token in values["tokens"]:
            token["strata"] = _shares(token["strata"])
    return values


def _shares(strata: Iterable[float]) -> list[dict[str, float]]:
    return [{"index": index, "occupancy": share} for index, share in enumerate(strata)]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
