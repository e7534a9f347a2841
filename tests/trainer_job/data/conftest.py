"""Small corpora on disk, and the configuration that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainer_job.config import DataConfig

Rows = Iterable[tuple[str, str]]
MakeFiles = Callable[[Mapping[str, Mapping[str, Rows]]], DataConfig]

BINARY = {"label_map": {"neg": "negative", "pos": "positive"}, "labels": ["negative", "positive"]}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DataConfig]:
    """Writes {domain: {split: rows}} as JSON lines and returns the configuration; keywords override
    data.*."""

    def write(domains: Mapping[str, Mapping[str, Rows]], **settings: Any) -> DataConfig:
        sections: dict[str, Any] = {}
        for domain, splits in domains.items():
            (tmp_path / domain).mkdir(exist_ok=True)
            for split, lines in splits.items():
                text = "\n".join(json.dumps({"text": body, "label": label}) for body, label in lines)
                (tmp_path / domain / f"{split}.jsonl").write_text(text, encoding="utf-8")
            names = {split: f"{domain}/{split}.jsonl" for split in splits}
            sections[domain] = {"source": {"kind": "files", "splits": names}, **BINARY}
        plain = {"root": tmp_path, "train_samples": None, "domains": sections}
        return DataConfig(**{**plain, **settings})

    return write
