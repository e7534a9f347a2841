"""The seam between the service and whatever computes: tokens in, raw outputs out.

It knows no torch, no tokenizer, no label and no wire. An engine is called by one thread at a time; one that
can give itself to more threads says so by `share`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from serving.types import EngineItem, EngineOutput


class EngineDied(Exception):  # noqa: N818  a meaning, as in serving.errors
    """The engine cannot compute anything any more; its lane answers everyone and tries to revive it."""


class Engine(Protocol):
    """Computes batches. `name` and `precision` are what GetModelInfo says, for example "torch" and "fp32"."""

    name: str
    precision: str

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """One output a row, in the order of the rows; every row has at least one token.

        Any exception means that this batch cannot be computed: the lane then runs its halves, down to the
        single item at fault. `EngineDied` means that nothing can.
        """
        ...


@runtime_checkable
class Shareable(Protocol):
    """An engine that several threads may use at the same time."""

    def share(self) -> Engine:
        """The same model for one more thread, with the weights in common; itself where `run` allows that."""
        ...
