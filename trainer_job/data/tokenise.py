"""Tokenising: texts become token ids once, kept in the cache and shared by all runs of a sweep.

It does not know batches or models: a tokenizer is whatever turns texts into `input_ids`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer_job.data.corpus import Corpus
from trainer_job.data.store import Batch, build_folder, open_table, write_table

TYPES = {
    "input_ids": "list<int32>",
    "length": "int32",
    "labels": "int64",
    "domain_id": "int64",
    "row_id": "int64",
}


def tokenize(corpus: Corpus, tokenizer: Any, *, max_length: int, cache: Path | None) -> dict[str, Any]:
    """The corpus as token ids, truncated to `max_length` tokens with the special ones, unpadded.

    Args:
        corpus: what `load_corpus` returned.
        tokenizer: a fast Hugging Face tokenizer.
        max_length: tokens, special tokens included.
        cache: a folder; tables are found again by corpus fingerprint, tokenizer and length. None: in memory.

    Returns:
        Split → `datasets.Dataset` with `input_ids`, `length` (tokens), `labels`, `domain_id`, `row_id`.

    Raises:
        DataError: the cache cannot be written.
    """
    if cache is None:
        return {split: _table(corpus, split, tokenizer, max_length, None) for split in corpus.splits}
    key = hashlib.sha256(
        f"{corpus.fingerprint} {tokenizer_hash(tokenizer)} {max_length}".encode()
    ).hexdigest()[:24]
    folder = cache / "tokens" / key
    if (tables := _reopen(folder, corpus)) is not None:
        return tables

    def fill(aside: Path) -> None:
        for split in corpus.splits:
            _table(corpus, split, tokenizer, max_length, aside / f"{split}.arrow")
        (aside / "complete").touch()

    build_folder(folder, fill, replace=folder.is_dir())
    return _reopen(folder, corpus) or {
        split: _table(corpus, split, tokenizer, max_length, None) for split in corpus.splits
    }


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of what decides the ids: the tokenizer's own JSON, less its padding and truncation settings."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for setting in ("padding", "truncation"):
        state.pop(setting, None)
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _table(corpus: Corpus, split: str, tokenizer: Any, max_length: int, path: Path | None) -> Any:
    def batches() -> Iterator[Batch]:
        for batch in corpus.splits[split].iter(batch_size=1000):
            ids = tokenizer(
                list(batch["text"]),
                truncation=True,
                max_length=max_length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )["input_ids"]
            yield {
                "input_ids": ids,
                "length": [len(row) for row in ids],
                "labels": batch["label"],
                "domain_id": batch["domain_id"],
                "row_id": batch["row_id"],
            }

    return write_table(batches(), types=TYPES, path=path)


def _reopen(folder: Path, corpus: Corpus) -> dict[str, Any] | None:
    if not (folder / "complete").is_file():
        return None
    try:
        return {split: open_table(folder / f"{split}.arrow") for split in corpus.splits}
    except (OSError, ValueError):  # pyarrow.ArrowInvalid is a ValueError
        return None
