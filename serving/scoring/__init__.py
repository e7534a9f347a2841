"""Offline scoring: the engine and the scheduler of the service, without a server."""

from __future__ import annotations

from serving.scoring.scorer import Scorer

__all__ = ["Scorer"]
