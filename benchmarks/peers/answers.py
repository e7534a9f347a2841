"""Whether a peer answers right: the labels that its model must give, and the peer asked for them.

A status of 200 says only that something was answered. So each server is asked for all labels before it is
measured, by several callers at once, so that batches form in which answers could be mixed up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.peers.fleet import Peer
from benchmarks.peers.plain import Classifier

__all__ = ["check", "labels_of_bundle", "labels_of_transformers"]

CALLERS = 8
PATIENCE = 60.0  # seconds until the first answer: some listen long before they have loaded
NEAR_TIES = 0.02  # share of labels that another order of sums may turn over


def labels_of_bundle(bundle: Path, texts: Sequence[str]) -> list[str]:
    """What the bundle's ONNX file says, one text at a time."""
    classifier = Classifier(bundle)
    return [classifier([text])[0] for text in texts]


def labels_of_transformers(folder: Path, texts: Sequence[str]) -> list[str]:
    """What a transformers classifier says, one text at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder))
    labels = []
    with torch.inference_mode():
        for text in texts:
            logits = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
            labels.append(str(model.config.id2label[int(logits.argmax())]))
    return labels


def check(peer: Peer, port: int, texts: Sequence[str], labels: Sequence[str]) -> None:
    """Ask for every label.

    Raises:
        RuntimeError: the peer does not answer, or an answer holds no label, or too many labels are others.
    """
    _answer(peer, port, texts[0], patience=PATIENCE)
    with ThreadPoolExecutor(CALLERS) as pool:
        found = list(pool.map(lambda text: _answer(peer, port, text, patience=10.0), texts))
    if strange := set(found) - set(labels):
        raise RuntimeError(f"{peer.name} answers {min(strange)!r}, which is no label of its model")
    wrong = sum(ours != theirs for ours, theirs in zip(found, labels, strict=True))
    if wrong > NEAR_TIES * len(labels):
        raise RuntimeError(
            f"{peer.name} answers {wrong} of {len(labels)} texts with another label than its model"
        )


def _answer(peer: Peer, port: int, text: str, *, patience: float) -> str:
    """The label of one text; asked again until there is one or time is up."""
    body = peer.body.replace("TEXT", json.dumps(text)).encode()
    started, reason = time.monotonic(), ""
    while not reason or time.monotonic() - started < patience:
        said = ""
        connection = HTTPConnection("127.0.0.1", port, timeout=patience)
        try:
            connection.request("POST", peer.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read().decode("utf-8", "replace")
            reason = said = f"status {response.status}: {answer[:200]}"
            if response.status == 200:
                return peer.label(json.loads(answer))
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            reason = f"{said} {error!r}".strip()
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError(f"{peer.name} gives no label: {' '.join(reason.split())}")
