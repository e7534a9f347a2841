"""A bar that shows how far a run is: on a terminal, and where tqdm is installed; else nothing."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO


class Bar(Protocol):
    """What a run tells."""

    def show(self, *, position: int, rows: int, failed: int) -> None:
        """How far the input is read, and what is done."""
        ...

    def close(self) -> None:
        """The run ended."""
        ...


class Silence:
    """No bar."""

    def show(self, *, position: int, rows: int, failed: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Tqdm:
    """tqdm's."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, *, position: int, rows: int, failed: int) -> None:
        """See `Bar`; tqdm itself decides when to draw."""
        self._bar.set_postfix(rows=rows, failed=failed, refresh=False)
        self._bar.update(position - self._bar.n)

    def close(self) -> None:
        """See `Bar`."""
        self._bar.close()


def open_bar(name: str, *, size: int | None, unit: str, stream: TextIO | None = None) -> Bar:
    """A bar for `size` units (None: unknown) on stderr, unless nobody watches it."""
    out = sys.stderr if stream is None else stream
    if not out.isatty():
        return Silence()
    try:
        from tqdm import tqdm
    except ImportError:
        return Silence()
    return Tqdm(tqdm(total=size, unit=unit, unit_scale=True, desc=name, file=out, dynamic_ncols=True))
