"""What every section of the configuration shares: strictness, and the names of splits, variants and controls.

It does not know any setting.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SPLITS = ("train", "validation", "test")
VARIANTS = ("none", "attention", "routing", "layers", "moe")
CONTROLS = ("shuffled", "random_gate", "lexical", "domain_only")  # of every variant but none
ARMS = (*VARIANTS, "none:matched", *(f"{name}:{how}" for name in VARIANTS[1:] for how in CONTROLS))

SplitName = Literal["train", "validation", "test"]


class Settings(BaseModel):
    """Base of every section: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
