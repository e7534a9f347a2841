"""One domain: where its rows are, which of them count, and how their labels read as ours.

It does not know the other domains, nor how many rows are taken.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from trainer_job.config.base import Settings, SplitName
from trainer_job.config.sources import Source


def _as_text(value: object) -> object:
    """YAML reads an unquoted 0 as a number and an unquoted no as false; both mean the text in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return tuple(_as_text(item) for item in value)
    return str(value) if isinstance(value, int | float) else value


class Thresholds(Settings):
    """Turns a rating into three classes: below `negative` / above `positive` / neutral between, inclusive."""

    negative: float = Field(description="ratings below are negative")
    positive: float = Field(description="ratings above are positive")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.negative > self.positive:
            msg = f"thresholds negative={self.negative} > positive={self.positive}; set negative ≤ positive"
            raise ValueError(msg)
        return self


class DomainConfig(Settings):
    """One domain. Exactly one of `label_map` and `thresholds` is given."""

    source: Source = Field(description="where the rows are")
    text: str = Field("text", description="column of the text")
    label: str = Field("label", description="column of the label or rating")
    label_map: dict[str, str] | None = Field(
        None, description="raw value as text: our label; a value that it does not name is refused"
    )
    thresholds: Thresholds | None = Field(None, description="for ratings, in place of label_map")
    labels: tuple[str, ...] = Field(
        description="every label that the domain has; another one, or one without rows, is refused"
    )
    where: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="column: value or list of values; other rows are left out"
    )
    group: str | None = Field(
        None, description="column whose rows stay in one split, such as the document of a sentence"
    )
    group_separator: str | None = Field(None, description="the group is what stands before it")
    cap: dict[SplitName, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="split: read at most so many rows, drawn in the source's own label shares",
    )
    licence: str | None = Field(None, description="recorded in the results and in model cards")

    @field_validator("label_map", "where", mode="before")
    @classmethod
    def _raw_values_are_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {_as_text(raw): _as_text(meaning) for raw, meaning in value.items()}

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if (self.label_map is None) == (self.thresholds is None):
            raise ValueError("give exactly one of label_map and thresholds")
        if len(set(self.labels)) < 2:  # a domain of one class teaches only its name
            msg = (
                f"labels={list(self.labels)}: a domain needs at least two classes; declare every label it has"
            )
            raise ValueError(msg)
        unknown = set(self.label_map.values()) - set(self.labels) if self.label_map else set()
        if unknown:
            msg = (
                f"label_map yields {sorted(unknown)}, outside labels={list(self.labels)}; add or correct them"
            )
            raise ValueError(msg)
        unused = set(self.labels) - set(self.label_map.values()) if self.label_map else set()
        if unused:
            msg = (
                f"labels {sorted(unused)} are in no entry of label_map; map a raw value to each or drop them"
            )
            raise ValueError(msg)
        return self
