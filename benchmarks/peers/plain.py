"""What every peer runs: a bundle's tokenizer and its ONNX file, in the plain way. Runs in the peer's own
environment, and so imports nothing of this project.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


class Classifier:
    """Texts in, labels out; on one thread, padded to the longest of a batch."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(os.environ["PEER_BUNDLE"])
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.labels = manifest["labels"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(manifest["max_length"])
        self.tokenizer.enable_padding()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, texts: list[str]) -> list[str]:
        """One label a text."""
        encoded = self.tokenizer.encode_batch(texts)
        feed = {
            "input_ids": np.array([row.ids for row in encoded], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in encoded], dtype=np.int64),
            "domain_id": np.full(len(texts), -1, dtype=np.int64),
        }
        logits = self.session.run(["logits"], feed)[0]
        return [self.labels[int(best)] for best in logits.argmax(-1)]


def batching() -> int:
    """The most texts of a batch; 1: batching is off."""
    return int(os.environ.get("PEER_BATCH", "1"))


def deadline() -> float:
    """After so many seconds nobody waits for an answer any more; 0: they wait for ever."""
    return float(os.environ.get("PEER_DEADLINE", "0"))


WAIT = 0.005  # seconds that a batch waits for more texts
