"""BentoML with the plain classifier. Runs in the peer's own environment."""

from __future__ import annotations

import bentoml
from plain import WAIT, Classifier, batching


@bentoml.service(workers=1, traffic={"timeout": 120})
class Plain:
    """One worker, its adaptive batching as asked for."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=batching() > 1, max_batch_size=max(2, batching()), max_latency_ms=60_000)
    def classify(self, texts: list[str]) -> list[str]:
        """One label a text."""
        return self.classifier(texts)


__all__ = ["WAIT", "Plain"]
