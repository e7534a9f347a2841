"""Which variants answer, or score, a share of the traffic beside the default: what may be planned at all.

It knows names and shares; who draws is `serving.traffic` and `serving.shadow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.errors import BadSettings, BadStore

if TYPE_CHECKING:
    from serving.source import Store


@dataclass(frozen=True, slots=True)
class Plan:
    """Variants by name ("": none), and what of the traffic each gets, in percent."""

    canary: str = ""
    canary_percent: float = 0.0
    shadow: str = ""
    shadow_percent: float = 0.0

    def check(self) -> Plan:
        """The same plan; raises `BadSettings` when a model or its share is missing."""
        for flag, name, percent in self._parts:
            if bool(name) != bool(percent):
                given, missing = (f"{flag}-model", f"{flag}-percent")
                given, missing = (given, missing) if name else (missing, given)
                value = repr(name) if name else f"{percent:g}"
                raise BadSettings(f"{given} {value} is given without {missing}; give both, or neither")
        return self

    def check_store(self, store: Store) -> list[str]:
        """The variants that must be loaded; raises `BadStore` for one that cannot play its part."""
        for flag, name, _ in self._parts:
            known = ", ".join(sorted(store.variants))
            if name and name not in store.variants:
                raise BadStore(f"{flag}-model {name!r} has no bundle in {store.root}; choose among: {known}")
            if name and name == store.default:
                raise BadStore(f"{flag}-model {name!r} is the default itself; choose another of: {known}")
        return list(dict.fromkeys(name for _, name, _ in self._parts if name))

    @property
    def _parts(self) -> tuple[tuple[str, str, float], ...]:
        return (
            ("--canary", self.canary, self.canary_percent),
            ("--shadow", self.shadow, self.shadow_percent),
        )
