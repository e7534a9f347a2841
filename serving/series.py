"""The closed sets of labels and the buckets of the metrics: which series exist; it counts nothing."""

from __future__ import annotations

STAGES = ("decode", "tokenize", "queue", "inference", "interpret", "encode")
CLOSE_REASONS = ("drained", "budget", "padding", "items")
REJECT_REASONS = ("QUEUE_FULL", "CALLER_QUEUE_FULL", "WOULD_MISS_DEADLINE")
DROP_REASONS = ("cancelled", "expired", "crashed", "hung", "closed")
CANARY_TARGETS = ("canary", "default", "unready")
SHADOW_OUTCOMES = ("same", "different", "failed", "skipped")
SWAP_OUTCOMES = ("swapped", "rejected", "missing", "failed")
ITEM_ERRORS = (
    "EMPTY_TEXT", "TEXT_TOO_LONG", "UNKNOWN_DOMAIN", "DEADLINE_MISSED", "ITEM_FAILED",
    "ENGINE_CRASHED", "ENGINE_HUNG", "DRAINING",
)  # fmt: skip

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAGS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
DIFFERENCES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHARES = tuple(step / 20 for step in range(1, 21))

RPC_LABELS = ("grpc_type", "grpc_service", "grpc_method")
