"""The domains together: how many rows are drawn, how they are cut, and what the leak guard looks for.

It does not know how rows are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from trainer_job.config.base import Settings
from trainer_job.config.domains import DomainConfig


class DataConfig(Settings):
    """The domains and how they are cut. `*_samples` are totals over all domains; null takes every row."""

    root: Path | None = Field(None, description="folder at which relative paths start")
    seed: int = Field(13, description="of every draw of rows; independent of the training seeds")
    labels: tuple[str, ...] = Field(("negative", "neutral", "positive"), description="in order of their ids")
    domains: dict[str, DomainConfig] = Field(min_length=1, description="name: the domain")
    train_samples: int | None = Field(4000, ge=1, description="training rows over all domains; null: all")
    samples_per_domain: int | None = Field(
        None, ge=1, description="training rows of each domain; in place of train_samples and domain_shares"
    )
    domain_rows: int | None = Field(
        0,
        ge=0,
        description="rows of each domain beyond the training rows, of which the domain alone is used: the "
        "domain head is fitted to them too; null: all that are left",
    )
    validation_samples: int | None = Field(None, ge=1, description="validation rows over all domains")
    test_samples: int | None = Field(None, ge=1, description="test rows over all domains")
    validation_fraction: float = Field(
        0.15, gt=0, lt=0.5, description="cut from train where a source has no validation split"
    )
    test_fraction: float = Field(0.25, gt=0, lt=0.5, description="the same for test")
    domain_shares: Literal["even", "size"] = Field(
        "even", description="each domain the same, or by size^(1/share_temperature)"
    )
    share_temperature: float = Field(1.0, ge=1, description="1: in proportion to size; larger: flatter")
    label_shares: Literal["natural", "even"] = Field(
        "natural", description="labels of a domain's training rows; evaluation splits keep the natural shares"
    )
    hold_out: str | None = Field(
        None, description="domain left out of training and validation, and tested as an unknown one"
    )
    leak_levels: tuple[Literal["exact", "span", "near"], ...] = Field(
        ("exact", "span"), min_length=1, description="what the leak guard looks for"
    )
    keep_leaks: bool = Field(False, description="report leaks but train on them; stamped on the results")
    mask_absent_labels: bool = Field(
        False, description="rule out the labels that a domain lacks, in training and when serving"
    )

    @model_validator(mode="after")
    def _labels_known(self) -> Self:
        for name, domain in self.domains.items():
            unknown = sorted(set(domain.labels) - set(self.labels))
            if unknown:
                msg = (
                    f"domain {name!r} declares labels {unknown}, outside data.labels={list(self.labels)}; "
                    "correct one"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _held_out_known(self) -> Self:
        if self.hold_out is not None and (self.hold_out not in self.domains or len(self.domains) < 2):
            msg = (
                f"hold_out={self.hold_out!r} must be one of at least two domains {list(self.domains)}; "
                "correct or remove it"
            )
            raise ValueError(msg)
        return self

    @property
    def trained_domains(self) -> tuple[str, ...]:
        """Names of the domains that are trained on, in order."""
        return tuple(name for name in self.domains if name != self.hold_out)
