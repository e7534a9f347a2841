"""Rows: a source's raw values become cleaned text, a label of ours, a duplicate key and a group.

It does not know files or other domains. Nothing is guessed: a value that the domain's map does not name is
refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer_job.config import DomainConfig
from trainer_job.data.sampling import allocate, generator
from trainer_job.data.sources import RawSplit
from trainer_job.data.store import Batch, write_table
from trainer_job.data.text import clean, text_key
from trainer_job.errors import DataError

Ints = npt.NDArray[np.int64]
BATCH = 4096


@dataclass(frozen=True)
class Prepared:
    """One split of one domain: the texts on disk, and what is decided over in memory."""

    texts: Any  # datasets.Dataset with the column text
    rows: Ints  # (n,) positions in `texts`
    label: npt.NDArray[np.int8]  # (n,) ids into data.labels
    key: Ints  # (n,) `text_key` of the text
    group: Ints | None  # (n,) rows of one group stay together; None: each row is its own

    def take(self, chosen: npt.NDArray[Any]) -> Prepared:
        """The rows at these positions, or under this mask, in that order."""
        group = None if self.group is None else self.group[chosen]
        return replace(
            self, rows=self.rows[chosen], label=self.label[chosen], key=self.key[chosen], group=group
        )

    def __len__(self) -> int:
        return len(self.rows)


def as_text(value: object) -> str:
    """A raw label or filter value as text: 1, 1.0 and "1" read alike, true and false in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def label_reader(domain: DomainConfig, labels: tuple[str, ...]) -> Callable[[object], int]:
    """A function from a raw label value to the label's id; it raises `ValueError` with rule and cure.

    The ids are places in `labels`.
    """
    ids = {name: place for place, name in enumerate(labels)}
    if domain.label_map is not None:
        known = {raw: ids[ours] for raw, ours in domain.label_map.items()}

        def mapped(value: object) -> int:
            try:
                return known[as_text(value)]
            except KeyError:
                names = ", ".join(sorted(known))
                msg = f"label {as_text(value)!r} is not in label_map ({names}); map it, or drop it by where"
                raise ValueError(msg) from None

        return mapped
    low, high = (domain.thresholds.negative, domain.thresholds.positive) if domain.thresholds else (0.0, 0.0)

    def rated(value: object) -> int:
        try:
            rating = float(str(value))
        except ValueError:
            rating = math.nan
        if not math.isfinite(rating):
            raise ValueError(f"rating {value!r} is not a finite number; correct data or use label_map")
        name = "negative" if rating < low else "positive" if rating > high else "neutral"
        if name not in domain.labels:
            raise ValueError(
                f"{rating} reads as {name}, outside {list(domain.labels)}; declare it or move a threshold"
            )
        return ids[name]

    return rated


def prepare(
    raw: RawSplit,
    domain: DomainConfig,
    *,
    labels: tuple[str, ...],
    repair_mojibake: bool,
    path: Path | None,
) -> tuple[Prepared, dict[str, int]]:
    """Read one split: filter, clean, map; drop rows without text.

    Args:
        raw: the source's rows.
        domain: columns, map, filters.
        labels: all labels, in the order of their ids.
        repair_mojibake: mend wrongly decoded characters.
        path: where the texts are written (None: kept in memory).

    Returns:
        The split, and the counts `read`, `filtered` and `empty`.

    Raises:
        DataError: an unknown label value, or nothing left.
    """
    counts = {"read": 0, "filtered": 0, "empty": 0}
    kept: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
    read = label_reader(domain, labels)

    def batches() -> Iterator[Batch]:
        buffer: list[tuple[str, int, int, int]] = []
        for row in raw.rows(_columns(domain)):
            counts["read"] += 1
            if not _passes(row, domain.where):
                counts["filtered"] += 1
                continue
            text = (
                ""
                if row[domain.text] is None
                else clean(as_text(row[domain.text]), repair_mojibake=repair_mojibake)
            )
            if not text:
                counts["empty"] += 1
                continue
            try:
                label = read(row[domain.label])
            except ValueError as error:
                raise DataError(f"{raw.where}, row {counts['read']}: {error}") from error
            buffer.append((text, label, text_key(text), _group(row, domain)))
            if len(buffer) == BATCH:
                yield _flush(buffer, kept)
        if buffer:
            yield _flush(buffer, kept)

    texts = write_table(batches(), types={"text": "string"}, path=path)
    if len(texts) == 0:
        raise DataError(
            f"{raw.where}: no row is left of {counts['read']} ({counts['filtered']} outside where, "
            f"{counts['empty']} without text); correct where or the text column"
        )
    joined = {name: np.concatenate(parts) for name, parts in kept.items()}
    group = joined["group"] if domain.group else None
    return Prepared(
        texts, np.arange(len(texts)), joined["label"].astype(np.int8), joined["key"], group
    ), counts


def capped(raw: RawSplit, domain: DomainConfig, *, cap: int, seed: int, name: str) -> RawSplit:
    """At most `cap` rows that pass `where`, drawn in the source's own label shares without reading texts."""
    strata: dict[str, list[int]] = defaultdict(list)
    columns = [domain.label, *domain.where]
    for position, row in enumerate(raw.rows(columns)):
        if _passes(row, domain.where):
            strata[as_text(row[domain.label])].append(position)
    sizes = {value: len(places) for value, places in sorted(strata.items())}
    if sum(sizes.values()) <= cap:
        return raw
    quotas = allocate(cap, {value: float(size) for value, size in sizes.items()}, capacities=sizes)
    drawn = [
        generator(seed, name, "cap", value).permutation(np.asarray(strata[value]))[: quotas[value]]
        for value in sizes
    ]
    return raw.take(np.sort(np.concatenate(drawn)).tolist())


def _columns(domain: DomainConfig) -> list[str]:
    names = [domain.text, domain.label, *domain.where]
    return list(dict.fromkeys(names if domain.group is None else [*names, domain.group]))


def _passes(row: Mapping[str, Any], where: Mapping[str, str | tuple[str, ...]]) -> bool:
    return all(
        as_text(row[column]) in ((wanted,) if isinstance(wanted, str) else wanted)
        for column, wanted in where.items()
    )


def _group(row: Mapping[str, Any], domain: DomainConfig) -> int:
    if domain.group is None:
        return 0
    name = as_text(row[domain.group])
    if domain.group_separator:
        name = name.split(domain.group_separator, 1)[0]
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _flush(buffer: list[tuple[str, int, int, int]], kept: dict[str, list[npt.NDArray[Any]]]) -> Batch:
    texts, label, key, group = zip(*buffer, strict=True)
    for name, values in (("label", label), ("key", key), ("group", group)):
        kept[name].append(np.asarray(values, dtype=np.int64))
    buffer.clear()
    return {"text": list(texts)}
