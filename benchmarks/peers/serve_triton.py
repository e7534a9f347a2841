"""Triton by PyTriton with the plain classifier. Runs in the peer's own environment."""

from __future__ import annotations

import os

import numpy as np
from plain import WAIT, Classifier, batching
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    classifier = Classifier()

    @batch
    def infer(text: np.ndarray) -> dict[str, np.ndarray]:
        """One label a row."""
        labels = classifier([row[0].decode() for row in text])
        return {"label": np.array([[label.encode()] for label in labels])}

    port, size = int(os.environ["PEER_PORT"]), batching()
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(1e6 * WAIT))
    config = ModelConfig(max_batch_size=max(1, size), batcher=batcher)
    with Triton(
        config=TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, allow_metrics=False)
    ) as triton:
        triton.bind(
            model_name="plain",
            infer_func=infer,
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="label", dtype=bytes, shape=(1,))],
            config=config,
        )
        triton.serve()
