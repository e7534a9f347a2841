"""Triton by PyTriton with the plain classifier. Runs in the peer's own environment."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from plain import WAIT, Classifier, batching, deadline
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, QueuePolicy, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    classifier = Classifier()
    # Asked to end, it would leave its server process behind; an exit by exception ends that one first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    @batch
    def infer(text: np.ndarray) -> dict[str, np.ndarray]:
        """One label a row."""
        labels = classifier([row[0].decode() for row in text])
        return {"label": np.array([[label.encode()] for label in labels])}

    size = batching()
    batcher = DynamicBatcher(
        max_queue_delay_microseconds=int(1e6 * WAIT) if size > 1 else 0,
        default_queue_policy=QueuePolicy(default_timeout_microseconds=int(1e6 * deadline()))
        if deadline()
        else None,
    )
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PEER_PORT"]),
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config, workspace=os.environ["PEER_SCRATCH"] + "/triton") as triton:
        triton.bind(
            model_name="plain",
            infer_func=infer,
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="label", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=max(1, size), batcher=batcher),
        )
        triton.serve()
