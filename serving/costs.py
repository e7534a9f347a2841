"""How fast the engine is and how far waits exceed what was predicted, as measured; it knows no queue and no
engine.

Long rows cost more per token than short ones, and short batches pay the fixed part of a call. One figure
would therefore mispredict both; a figure per power of two of the longest row keeps them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

SMOOTHING = 0.2  # weight of the newest batch: follows a change of load within about ten batches
KEPT = 0.95  # share of those who are let in whose wait shall not exceed what was predicted, stretched
STRIDE = 0.05  # of the stretch at each wait: up by nearly all of it, or down by the rest
LEAST, MOST = 1.0, 4.0
TELLING = 0.05  # seconds; a shorter wait is mostly the batch that runs


def bucket(length: int) -> int:
    """The bucket of a row: the smallest power of two ≥ `length`, from 16 up."""
    return max(16, 1 << (length - 1).bit_length())


class CostModel:
    """Exponentially smoothed tokens per second by bucket; real tokens, so that padding shows as slowness."""

    def __init__(self, *, initial: float) -> None:
        """`initial`: tokens a second to assume before the first measurement (> 0)."""
        self._initial = initial
        self._rates: dict[int, float] = {}

    def observe(self, *, longest: int, tokens: int, seconds: float) -> None:
        """Learn from one batch: its longest row, its real tokens, and how long the engine took."""
        if tokens <= 0 or seconds <= 0:
            return
        key, rate = bucket(longest), tokens / seconds
        known = self._rates.get(key)
        self._rates[key] = rate if known is None else known + SMOOTHING * (rate - known)

    def rate(self, length: int) -> float:
        """Tokens a second for rows of this length; of the nearest measured bucket where this one is not."""
        key = bucket(length)
        if key in self._rates:
            return self._rates[key]
        if not self._rates:
            return self._initial
        return self._rates[min(self._rates, key=lambda other: abs(other.bit_length() - key.bit_length()))]

    def seconds(self, tokens_by_bucket: Mapping[int, int]) -> float:
        """Predicted seconds for tokens that wait, by bucket."""
        return sum(tokens / self.rate(length) for length, tokens in tokens_by_bucket.items() if tokens)


class Stretch:
    """By which factor predicted waits are stretched, so that `KEPT` of the real ones are below it.

    The sum of what waits predicts the mean. Those of a rare length wait longer than the mean, since others of
    like length ride past them, and a promise is made to them too. The quantile is followed by stochastic
    approximation (Robbins and Monro, A stochastic approximation method, 1951): a step of `STRIDE`, weighted
    so that the steps cancel when the share is met.
    """

    def __init__(self) -> None:
        self.factor = LEAST

    def observe(self, *, predicted: float, waited: float) -> None:
        """Learn from one wait (seconds); infinity is one whose end was not seen."""
        if predicted < TELLING:
            return
        longer = waited > predicted * self.factor
        step = STRIDE * (KEPT if longer else KEPT - 1)
        self.factor = min(MOST, max(LEAST, self.factor + step))
