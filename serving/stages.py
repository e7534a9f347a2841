"""Where the time of a request goes: each stage is told to the metrics and, where tracing is on, to the trace.

It knows the names of the stages and nothing of what happens in them. What a trace is, stands behind the small
seam `Tracing`; `NoTracing` is what a server has that was not told to trace, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from serving.metrics import Metrics


class Span(Protocol):
    """One call, while it is under way."""

    def note(self, **attributes: str | int | float) -> None:
        """Say something more of it."""
        ...

    def fail(self, code: str) -> None:
        """It ends with this status, which is not OK."""
        ...


class Tracing(Protocol):
    """Turns calls and their stages into spans. Times are seconds of the service's clock."""

    def call(self, service: str, method: str, metadata: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """The call that is handled inside; it joins the caller's trace where the metadata names one."""
        ...

    def stage(self, name: str, began: float, ended: float, **attributes: int) -> None:
        """A stage of the call that is being handled; nothing outside of one."""
        ...

    def close(self) -> None:
        """Send what is left, for a few seconds at most; blocks."""
        ...


class NoSpan:
    """A call that nobody follows."""

    def note(self, **attributes: str | int | float) -> None:
        """Nothing."""

    def fail(self, code: str) -> None:
        """Nothing."""


class NoTracing:
    """No spans."""

    _span = NoSpan()

    @contextmanager
    def _nothing(self) -> Iterator[Span]:
        yield self._span

    def call(self, service: str, method: str, metadata: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """See `Tracing.call`."""
        return self._nothing()

    def stage(self, name: str, began: float, ended: float, **attributes: int) -> None:
        """See `Tracing.stage`."""

    def close(self) -> None:
        """See `Tracing.close`."""


class Stages:
    """Tells both."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self._metrics, self._tracing = metrics, tracing

    def took(self, name: str, began: float, ended: float, **attributes: int) -> None:
        """A stage of `serving.series.STAGES` took from `began` to `ended`."""
        self._metrics.stage_seconds.labels(name).observe(max(0.0, ended - began))
        self._tracing.stage(name, began, ended, **attributes)
