"""Where models come from, as a seam: what a store holds, what loading yields, and who can do both.

Imports no torch and no bundle format. `serving.loading` reads bundles, `serving.engines.fake` invents models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving.costs import CostModel
from serving.encoding import Encoder
from serving.engines.base import Engine
from serving.errors import BadStore
from serving.types import ModelCard

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """One variant of a store; `error` says why its manifest could not be read, and is empty when it could.

    `stamp` has name, bytes and time of change (ns) of each of its files: what has the same stamp was not
    touched. `weights` is how many bytes its weights take, whichever engine reads them.
    """

    name: str
    path: Path
    version: str = ""
    sha256: str = ""
    error: str = ""
    stamp: tuple[tuple[str, int, int], ...] = ()
    weights: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """The variants by name, and the one that answers by default ("": no telling).

    `selected` is what a sweep selected; empty when none did, or when the settings override it.
    """

    root: Path
    variants: Mapping[str, Found]
    default: str
    selected: str = ""

    def chosen(self, load: str) -> list[Found]:
        """What to load, the default first: "selected", "all", or names with commas.

        Raises `BadStore` for a name that the store does not have.
        """
        known = sorted(self.variants)
        named = [part.strip() for part in load.split(",")]
        names = {"selected": [], "all": known}.get(load, [name for name in named if name != "selected"])
        unknown = sorted(set(names) - set(known))
        if unknown:
            text = f"--load names {', '.join(unknown)}, not in {self.root}; choose among: {', '.join(known)}"
            raise BadStore(text)
        return [self.variants[name] for name in dict.fromkeys([self.default, *names])]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything that a deployment needs; `batch_tokens` and `padding_tokens` are what the warm-up found best
    on this device.
    """

    card: ModelCard
    encoder: Encoder
    engine: Engine
    costs: CostModel
    batch_tokens: int
    padding_tokens: int = 16


class Source(Protocol):
    """Finds and loads models; all calls block, and are made on a worker thread."""

    def open(self) -> Store:
        """Survey the store; raises `BadStore`."""
        ...

    def look(self) -> Store:
        """Survey the store again, while models of it answer; that there is no default is no error here.

        Raises `BadStore` when there is no bundle, `OSError` when the disk does not answer.
        """
        ...

    def load(self, found: Found, announce: Announce) -> Loaded:
        """Load one variant, announcing each step before it begins; raises `BadStore`."""
        ...
