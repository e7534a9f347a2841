"""Windows: hashes of all runs of characters in many texts at once, for finding what two texts share.

It does not know rows or domains. Equal runs hash alike; the callers check what they find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

# Odd multipliers of a polynomial hash modulo 2⁶⁴, one for each doubling (golden-ratio and xxHash constants).
_MULTIPLIERS = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
)


def window_hashes(texts: Sequence[str], width: int) -> tuple[Hashes, Ints]:
    """Hashes of every run of `width` characters, and the text that each stands in.

    Windows of 2^k characters are made by doubling, and the rest of `width` by joining powers of two, so the
    work is a few array operations whatever the width. Runs across the border of two texts are left out.

    Args:
        texts: n strings.
        width: characters, from 1 to 63.

    Returns:
        hashes (m,) and places (m,) ascending in [0, n), m = Σ max(0, len - width + 1).
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
    ends = np.cumsum(lengths)
    if len(codes) < width:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    powers = _scrambled(codes)
    joined: Hashes | None = None
    covered = 0
    for bit, multiplier in enumerate(_MULTIPLIERS):
        size = 1 << bit
        if width & size:
            part = powers[covered:]
            joined = part if joined is None else _join(joined, part, _MULTIPLIERS[-1 - bit])
            covered += size
        if size << 1 > width:
            break
        powers = _join(powers, powers[size:], multiplier)
    places = np.repeat(np.arange(len(texts)), lengths)[: len(codes) - width + 1]
    inside = np.arange(len(places)) + width <= ends[places]
    hashes = _scrambled(np.zeros(0, dtype=np.uint64) if joined is None else joined)
    return hashes[inside], places[inside]


def _join(left: Hashes, right: Hashes, multiplier: int) -> Hashes:
    """Hash of two runs side by side; cut to where both exist."""
    size = min(len(left), len(right))
    result: Hashes = _scrambled(left[:size] * np.uint64(multiplier) + right[:size])
    return result


def _scrambled(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: each bit of the input moves all bits of the output."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


class Lookup:
    """A set of hashes that most windows are not in: a bitmap first, a binary search for what passes."""

    def __init__(self, hashes: Hashes) -> None:
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]
        self._bitmap = np.zeros(1 << 22, dtype=bool)
        self._bitmap[self._sorted >> np.uint64(42)] = True

    def matches(self, hashes: Hashes) -> tuple[Ints, Ints]:
        """Pairs (position in `hashes`, position in the set) of equal hashes."""
        likely = np.flatnonzero(self._bitmap[hashes >> np.uint64(42)])
        low = np.searchsorted(self._sorted, hashes[likely], side="left")
        high = np.searchsorted(self._sorted, hashes[likely], side="right")
        count = high - low
        asked = np.repeat(likely, count)
        offset = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count, count)
        return asked, self._order[np.repeat(low, count) + offset]
