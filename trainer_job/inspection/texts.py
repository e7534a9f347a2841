"""The texts that an inspection looks at: of a file of JSON lines, or of a split of a configuration's data.

It knows names of labels and domains, and no model. R texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer_job.errors import ConfigError, DataError

__all__ = ["Texts", "find_texts", "read_texts"]

ROWS = 1500  # texts of a configuration that are read: their tokens outnumber what is looked at anyway


@dataclass(frozen=True)
class Texts:
    """Texts with label and domain ids, −1 where unknown, and names of domains that the model does not know,
    empty where it does or none is given."""

    texts: list[str]
    labels: np.ndarray
    domains: np.ndarray
    strangers: np.ndarray


def find_texts(
    data: str,
    *,
    split: str,
    labels: Sequence[str],
    domains: Sequence[str],
    seed: int,
    settings: Sequence[str],
    environ: Any,
) -> tuple[Texts, str]:
    """Texts of a JSON-lines file, or of a split of a configuration's data; and what to call them.

    Args:
        data: a path, or a configuration by path or name; `split`, `seed` (of which 1,500 rows) and `settings`
            are for a configuration alone.
        labels, domains: of the model, by whose places rows are told.

    Raises:
        ConfigError: settings for a file that is no configuration, or a configuration of other domains.
        DataError: no such file, or lines that are no texts.
    """
    path = Path(data)
    if path.suffix in (".jsonl", ".ndjson"):
        if settings:
            raise ConfigError(
                f"--set {settings[0]}: {path.name} is no configuration to override; leave it out"
            )
        if not path.is_file():
            raise DataError(f"{path}: no such file; name a file of JSON lines, or a configuration")
        return read_texts(path, labels=labels, domains=domains), path.name
    from trainer_job.data import load_corpus
    from trainer_job.loading import load_config

    config = load_config(data, settings=settings, environ=environ)
    corpus = load_corpus(config.data, cache=config.cache)
    table = corpus.splits[split]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:ROWS])
    rows = table.select(chosen.tolist())
    ids = [domains.index(name) if name in domains else -1 for name in corpus.domains]
    if max(ids) < 0:
        raise ConfigError(
            f"{data}: domains {list(corpus.domains)} are none of the model's {domains}; give its own"
        )
    domain_id = np.asarray(rows["domain_id"])
    of_rows = np.array(ids)[domain_id]
    strangers = np.array([name if at < 0 else "" for name, at in zip(corpus.domains, ids, strict=True)])
    places = [list(labels).index(name) if name in labels else -1 for name in corpus.labels]
    of_labels = np.array(places)[np.asarray(rows["label"])]
    found = Texts(list(rows["text"]), of_labels, of_rows, strangers[domain_id])
    return found, f"{path.name}, {split}"


def read_texts(path: Path, *, labels: Sequence[str], domains: Sequence[str]) -> Texts:
    """Lines of JSON with `text`, and where known `label` and `domain` by name. Raises DataError."""
    rows: list[tuple[str, int, int, str]] = []
    # `splitlines` would also split at characters that JSON strings may hold, such as U+0085.
    # A file that begins with a byte order mark, as some editors write it, is read without it.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            text = entry["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: no JSON object with `text`; write one on each line") from error
        if not isinstance(text, str):
            raise DataError(
                f"{path}:{number}: `text` is {json.dumps(text)[:40]}, no string; write it in quotes"
            )
        domain = _place(entry.get("domain"), domains)
        stranger = "" if domain >= 0 else str(entry.get("domain") or "")
        rows.append((text, _place(entry.get("label"), labels), domain, stranger))
    if not rows:
        raise DataError(f"{path}: no texts; write one JSON object on each line")
    found, *columns = zip(*rows, strict=True)
    return Texts(list(found), *map(np.array, columns))


def _place(name: object, names: Sequence[str]) -> int:
    return list(names).index(str(name)) if str(name) in names else -1
