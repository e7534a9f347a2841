"""`none`: the pretrained encoder as it is, with the domain head and no gate. The baseline of every
comparison."""

from __future__ import annotations

from typing import ClassVar

from stratified_models.hooks import Variant

__all__ = ["Plain"]


class Plain(Variant):
    """No block is changed, and no strata are looked for."""

    uses_strata: ClassVar[bool] = False
