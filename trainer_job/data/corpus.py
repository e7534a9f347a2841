"""The corpus: train, validation and test rows of all domains, with the record of how they came about.

It does not know how rows are read or chosen (`build` does), nor models. A corpus in the cache is found
again by its configuration and the state of its sources, and then opens in no time, memory-mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer_job.config import SPLITS, DataConfig
from trainer_job.data.build import HELD_OUT, SPARE, TYPES, Built, build
from trainer_job.data.sources import Located, locate
from trainer_job.data.store import build_folder, open_table

RULES = 2  # raise it whenever cleaning, keys, sampling or the guard change, so that old caches are not read


@dataclass(frozen=True)
class Corpus:
    """All rows that a sweep reads. Datasets are memory-mapped where a cache folder was given.

    Columns of each split: `text` (string), `label`, `domain_id` and `row_id` (int64; row_id is 0 … n-1 in
    order).
    """

    splits: Mapping[str, Any]  # split → datasets.Dataset
    labels: tuple[str, ...]
    domains: tuple[str, ...]
    domain_labels: tuple[tuple[int, ...], ...]  # for each domain the ids of the labels that it has
    counts: dict[str, dict[str, dict[str, int]]]  # domain → split → label → rows, after everything
    sources: dict[str, dict[str, Any]]  # domain → source, revision, licence, requested, got, warnings, …
    leaks: dict[str, Any]  # what the guard found and dropped, and conflicting labels
    fingerprint: str  # sha256 over the label and domain names and the ordered rows of all splits
    held_out: dict[str, Any] | None = None  # the domain of the split `held_out`, which is only tested


def load_corpus(config: DataConfig, *, cache: Path | None = None) -> Corpus:
    """Read, clean, guard and sample all domains, or open the corpus that was built from the same before.

    Args:
        config: the data section.
        cache: a folder for built corpora; None keeps everything in memory.

    Raises:
        DataError: with value, rule and cure; nothing is left half written.
    """
    located = {name: locate(name, domain, config.root) for name, domain in config.domains.items()}
    if cache is None:
        return _assemble(config, build(config, located, folder=None))
    folder = cache / "corpora" / _cache_key(config, located)
    if (corpus := _reopen(folder)) is not None:
        return corpus

    def fill(aside: Path) -> None:
        made = _assemble(config, build(config, located, folder=aside))
        record = {name: value for name, value in vars(made).items() if name != "splits"}
        (aside / "corpus.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

    build_folder(folder, fill, replace=folder.is_dir())
    corpus = _reopen(folder)
    return corpus if corpus is not None else _assemble(config, build(config, located, folder=None))


def _assemble(config: DataConfig, built: Built) -> Corpus:
    domains = config.trained_domains
    ids = {label: place for place, label in enumerate(config.labels)}
    return Corpus(
        splits=built.splits,
        labels=config.labels,
        domains=domains,
        domain_labels=tuple(
            tuple(sorted(ids[label] for label in config.domains[name].labels)) for name in domains
        ),
        counts=built.counts,
        sources=built.sources,
        leaks=built.leaks,
        fingerprint=fingerprint(built.splits, labels=config.labels, domains=domains),
        held_out=built.held_out,
    )


def fingerprint(splits: Mapping[str, Any], *, labels: tuple[str, ...], domains: tuple[str, ...]) -> str:
    """SHA-256 over the names and all rows in order: equal exactly when a training run reads the same."""
    digest = hashlib.sha256(json.dumps([labels, domains]).encode())
    for split in (*SPLITS, *(name for name in (HELD_OUT, SPARE) if name in splits)):
        digest.update(f"\x1e{split}\x1e".encode())
        for batch in splits[split].iter(batch_size=4096):
            for text, label, domain in zip(batch["text"], batch["label"], batch["domain_id"], strict=True):
                digest.update(f"{text}\x1f{label}\x1f{domain}\n".encode())
    return digest.hexdigest()


def _cache_key(config: DataConfig, located: Mapping[str, Located]) -> str:
    parts = [
        str(RULES),
        config.model_dump_json(),
        *(f"{name} {place.identity}" for name, place in located.items()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _reopen(folder: Path) -> Corpus | None:
    """The corpus of a finished folder; None where there is none or it does not read."""
    try:
        record = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        spare = any(source["got"].get(SPARE) for source in record["sources"].values())
        names = (*SPLITS, *([HELD_OUT] if record["held_out"] else []), *([SPARE] if spare else []))
        splits = {split: open_table(folder / f"{split}.arrow") for split in names}
    except (OSError, ValueError, KeyError):  # pyarrow.ArrowInvalid is a ValueError
        return None
    if any(list(table.column_names) != list(TYPES) for table in splits.values()):
        return None
    for name in ("labels", "domains"):
        record[name] = tuple(record[name])
    record["domain_labels"] = tuple(tuple(ids) for ids in record["domain_labels"])
    return Corpus(splits=splits, **record)
