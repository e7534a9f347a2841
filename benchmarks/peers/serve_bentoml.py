"""BentoML with the plain classifier. Runs in the peer's own environment."""

from __future__ import annotations

import bentoml
from plain import Classifier, batching, deadline

# It chooses itself how long a batch waits. What it takes is the most that a call may last, after which it
# refuses: far above what callers who all wait can cause, but for the load that is more than it can compute.
SECONDS = deadline() or 120.0


@bentoml.service(
    workers=1, threads=1, traffic={"timeout": max(1, SECONDS)}, logging={"access": {"enabled": False}}
)
class Plain:
    """One worker, its adaptive batching as asked for."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(
        batchable=batching() > 1, max_batch_size=max(2, batching()), max_latency_ms=int(1000 * SECONDS)
    )
    def classify(self, texts: list[str]) -> list[str]:
        """One label a text."""
        return self.classifier(texts)


__all__ = ["Plain"]
