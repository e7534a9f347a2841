"""Which model answers a request that names none: the default, or, for a share of them, a canary.

It knows names and states of models, and no text. The share is drawn anew for each call (each stream, as a
stream keeps its model), from a source of random numbers that is passed in. A canary that cannot answer right
now is passed over, so that it fails nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.metrics import Metrics
from serving.models import Models
from serving.plan import Plan
from serving.types import ModelState


class Traffic:
    """`draw` gives numbers in [0, 1), evenly."""

    def __init__(self, plan: Plan, *, models: Models, metrics: Metrics, draw: Callable[[], float]) -> None:
        self._plan, self._models, self._metrics, self._draw = plan, models, metrics, draw

    def choose(self, model: str) -> str:
        """The variant for a request: the one that it names, else the canary for its share, else ""."""
        name = self._plan.canary
        if model or not name or name == self._models.default:
            return model
        if self._draw() * 100 >= self._plan.canary_percent:
            self._metrics.canary.labels("default").inc()
            return ""
        summary = self._models.summary(name)
        if summary is None or summary.state is not ModelState.READY:
            self._metrics.canary.labels("unready").inc()
            return ""
        self._metrics.canary.labels("canary").inc()
        return name
