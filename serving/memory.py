"""The bound on what the weights of loaded models may take together, as a book of who holds how much.

It knows names and bytes and no model. Nothing is ever pushed out: what does not fit is refused, and whoever
may unload a model decides which one. The bound holds at every moment, also while a new bundle is loaded
beside the one that it replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.errors import NoRoom

MIB = 2**20


@dataclass(slots=True, eq=False)
class Lease:
    """Room that a model holds until it is freed."""

    name: str
    size: int
    _free: Callable[[Lease], None]

    def free(self) -> None:
        """Give the room back; doing so again changes nothing."""
        self._free(self)


class Memory:
    """`bound` in bytes; 0: none. `on_change` hears of a model's bytes, `on_free` that there is more room."""

    def __init__(
        self,
        bound: int,
        *,
        on_change: Callable[[str, int], None] = lambda name, size: None,
    ) -> None:
        self._bound, self._on_change = bound, on_change
        self._leases: list[Lease] = []
        self.on_free: Callable[[], None] = lambda: None

    @property
    def held(self) -> int:
        """Bytes that are taken."""
        return sum(lease.size for lease in self._leases)

    def hold(self, name: str, size: int) -> Lease:
        """Take room for the weights of a model; raises `NoRoom` when the bound would be passed."""
        if self._bound and self.held + size > self._bound:
            raise NoRoom(
                f"{name} needs {_mib(size)} MiB, and {self._takers()} take {_mib(self.held)} of the "
                f"{_mib(self._bound)} MiB of --model-memory; unload one, or raise it"
            )
        lease = Lease(name, size, self._give_back)
        self._leases.append(lease)
        self._told(name)
        return lease

    def _give_back(self, lease: Lease) -> None:
        if lease in self._leases:
            self._leases.remove(lease)
            self._told(lease.name)
            self.on_free()

    def _told(self, name: str) -> None:
        self._on_change(name, sum(lease.size for lease in self._leases if lease.name == name))

    def _takers(self) -> str:
        named = (f"{lease.name} ({_mib(lease.size)})" for lease in self._leases)
        return ", ".join(named) or "no models"


def _mib(size: int) -> str:
    return f"{size / MIB:.1f}".removesuffix(".0")
