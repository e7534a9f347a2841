"""Looks at the store at intervals, and asks for a change when it holds another bundle, or selects another
variant.

It knows what counts as new; how a model is swapped is `serving.fleet`. Looking, not being told: volumes that
are mounted over a network tell nobody of changes made elsewhere. A bundle that could not be used is tried
again only when its files have changed since.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import structlog

from serving.errors import BadStore
from serving.fleet import Fleet
from serving.logs import describe
from serving.metrics import Metrics
from serving.source import Found, Store

PATIENCE = 2  # looks: a bundle that is being written has no manifest for a moment

log = structlog.get_logger(__name__)


class Watcher:
    """`selected` is what the store selected at the start: only another selection changes the default, so that
    what an operator set stands until the next sweep.
    """

    def __init__(self, fleet: Fleet, metrics: Metrics, *, selected: str) -> None:
        self._fleet, self._metrics = fleet, metrics
        self._selected = selected
        self._refused: Found | None = None  # the selected bundle that could not be used
        self._absences: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Look every so many seconds until cancelled; a bug in one look does not end the others."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except Exception as error:
                log.error("look at the store failed", **describe(error))

    async def look(self) -> None:
        """Look once, and carry out what has to change."""
        try:
            store = await self._fleet.look()
        except (BadStore, OSError) as error:
            self._miss("", f"the store cannot be read ({error})")
            for name in self._fleet.tried:
                self._fleet.try_again(name)
            return
        self._absences.pop("", None)
        self._fleet.note(store)
        for name, last in list(self._fleet.tried.items()):
            await self._follow(name, last, store)
        await self._follow_selection(store)

    async def _follow(self, name: str, last: Found, store: Store) -> None:
        """Swap one variant when the store has another bundle of it than the one that was last tried."""
        by_path = {found.path: found for found in store.variants.values()}
        found = store.variants.get(name)
        if found is None:
            found = _in_place_of(name, by_path.get(last.path))
        if found is None:
            self._miss(name, f"{name} is no longer in the store")
            self._fleet.try_again(name)
            return
        self._absences.pop(name, None)
        if self._fleet.serves(found) or found == last:
            return
        try:
            await self._fleet.swap(found)
        except Exception:
            return  # counted and logged where it was judged; the old one answers on

    async def _follow_selection(self, store: Store) -> None:
        name = store.selected
        if not name or name == self._selected:
            return
        found = store.variants.get(name)
        if found is None:
            self._miss(f"selected {name}", f"{name} is selected, and has no bundle in the store")
            return
        self._absences.pop(f"selected {name}", None)
        tried = found == self._fleet.tried.get(name) and not self._fleet.serves(found)
        if tried or found == self._refused:
            return
        try:
            await self._fleet.select(found)
        except Exception:
            self._refused = found
            return  # counted and logged where it was judged
        self._selected, self._refused = name, None

    def _miss(self, key: str, text: str) -> None:
        """Count and say once, at the second look, that something is not there; what is loaded answers on."""
        self._absences[key] += 1
        if self._absences[key] == PATIENCE:
            self._metrics.swaps.labels("missing").inc()
            log.error("model missing", why=f"{text}; what is loaded answers on")


def _in_place_of(name: str, found: Found | None) -> Found | None:
    """What stands where the bundle of `name` stood: unreadable, or of another variant."""
    if found is None:
        return None
    error = found.error or f"{found.path} now holds {found.name!r} instead of {name!r}"
    return Found(name, found.path, found.version, found.sha256, error, found.stamp)
