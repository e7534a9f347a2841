"""Building a corpus: read each domain, cut missing splits, guard against leaks, sample, write.

It does not know where the result is kept or how it is found again. The order matters: duplicates go before
splits are cut (so a cut makes no leak), the guard sees whole evaluation splits (so sampling hides none),
sampling is last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer_job.config import SPLITS, DataConfig, DomainConfig
from trainer_job.data.leaks import Finder, Splits, conflicts, find_exact, guard, one_of_each
from trainer_job.data.near import find_near
from trainer_job.data.rows import Prepared, capped, prepare
from trainer_job.data.sampling import allocate, domain_weights, draw, generator
from trainer_job.data.sources import Located
from trainer_job.data.spans import find_spans
from trainer_job.data.splits import cut
from trainer_job.data.store import Batch, write_table
from trainer_job.errors import DataError

HELD_OUT = "held_out"  # the split of the domain that is only tested
SPARE = "spare"  # the split of training rows that were not drawn, of which the domain alone is used
TYPES = {"text": "string", "label": "int64", "domain_id": "int64", "row_id": "int64"}


@dataclass(frozen=True)
class Built:
    """The tables of all splits and the record of their making; see `Corpus` for the parts."""

    splits: dict[str, Any]
    counts: dict[str, dict[str, dict[str, int]]]
    sources: dict[str, dict[str, Any]]
    leaks: dict[str, Any]
    held_out: dict[str, Any] | None


def build(config: DataConfig, located: Mapping[str, Located], *, folder: Path | None) -> Built:
    """Build from found sources; with a folder, tables are written there and memory stays bounded.

    Raises:
        DataError: with value, rule and cure.
    """
    read: dict[str, dict[str, Prepared]] = {}
    sources: dict[str, dict[str, Any]] = {}
    for name, domain in config.domains.items():
        read[name], sources[name] = _read_domain(name, domain, config, located[name], folder)
    torn = conflicts(read, config.labels)
    whole = {name: _cut_missing(name, _unique(parts, sources[name]), config) for name, parts in read.items()}
    kept, leaks = guard(whole, [FINDERS[level] for level in config.leak_levels], keep=config.keep_leaks)
    leaks |= {"conflicting_labels": torn["texts"], "conflict_examples": torn["examples"]}
    sampled = _sample(kept, config, sources)
    held = None if config.hold_out is None else {config.hold_out: sampled.pop(config.hold_out)}
    counts = {name: _counts(parts, config.domains[name], config.labels) for name, parts in sampled.items()}
    for name, parts in sampled.items():
        _check(name, parts, counts[name], config.domains[name], sources[name], leaks)
    written = (*SPLITS, *([SPARE] if any(len(parts[SPARE]) for parts in sampled.values()) else []))
    splits = {split: _write(sampled, split, config, folder) for split in written}
    described = None
    if held is not None:
        described = _describe_held_out(held, config, sources)
        splits[HELD_OUT] = _write(held, "test", config, folder, named=HELD_OUT)
    if folder is not None:
        for path in folder.glob("raw-*.arrow"):
            path.unlink()
    return Built(splits, counts, {name: sources[name] for name in sampled}, leaks, described)


FINDERS: dict[str, Finder] = {"exact": find_exact, "span": find_spans, "near": find_near}


def _read_domain(
    name: str, domain: DomainConfig, config: DataConfig, located: Located, folder: Path | None
) -> tuple[dict[str, Prepared], dict[str, Any]]:
    parts: dict[str, Prepared] = {}
    record: dict[str, Any] = {
        "source": located.source,
        "revision": located.revision,
        "licence": domain.licence,
        "read": {},
        "filtered": {},
        "empty": {},
        "warnings": [],
    }
    caps = {str(split): rows for split, rows in domain.cap.items()}
    opened = located.open()
    if "train" not in opened:
        raise DataError(
            f"domain {name!r}: source.splits {sorted(opened)} lacks train; name the split to learn from"
        )
    for place, (split, raw) in enumerate(opened.items()):
        path = None if folder is None else folder / f"raw-{list(config.domains).index(name)}-{place}.arrow"
        cap = caps.get(split)
        chosen = (
            raw if cap is None else capped(raw, domain, cap=cap, seed=config.seed, name=f"{name}/{split}")
        )
        parts[split], counts = prepare(
            chosen, domain, labels=config.labels, repair_mojibake=located.repair_mojibake, path=path
        )
        for what, count in counts.items():
            record[what][split] = count
        if counts["empty"]:
            record["warnings"].append(f"{split}: {counts['empty']} rows without text dropped")
    return parts, record


def _unique(parts: Mapping[str, Prepared], record: dict[str, Any]) -> dict[str, Prepared]:
    unique = {split: part.take(one_of_each(part)) for split, part in parts.items()}
    record["duplicates"] = {split: len(parts[split]) - len(unique[split]) for split in parts}
    return unique


def _cut_missing(name: str, parts: Mapping[str, Prepared], config: DataConfig) -> dict[str, Prepared]:
    wanted = {"validation": config.validation_fraction, "test": config.test_fraction}
    fractions = {split: fraction for split, fraction in wanted.items() if split not in parts}
    whole = dict(parts)
    if fractions:
        train = parts["train"]
        places = cut(train.label, train.group, fractions, rng=generator(config.seed, name, "cut"))
        whole |= {split: train.take(rows) for split, rows in places.items()}
    return {split: whole[split] for split in SPLITS}


def _sample(
    splits: Splits, config: DataConfig, sources: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Prepared]]:
    totals = {
        "train": config.train_samples,
        "validation": config.validation_samples,
        "test": config.test_samples,
    }
    sampled: dict[str, dict[str, Prepared]] = {name: {} for name in splits}
    for record in sources.values():
        record |= {"requested": {}, "got": {}}
    for split, total in totals.items():
        sizes = {name: len(parts[split]) for name, parts in splits.items()}
        if split != "test":  # a held-out domain gives test rows alone, and as many as it would give otherwise
            sizes = {name: sizes[name] for name in config.trained_domains}
        quotas, drawn = _quotas(config, split, total, sizes)
        for name in sizes:
            parts = splits[name]
            even = split == "train" and config.label_shares == "even" and drawn
            chosen = _draw_domain(
                parts[split], quotas[name], even=even, seed=config.seed, name=f"{name}/{split}"
            )
            sampled[name][split] = parts[split].take(chosen)
            sources[name]["requested"][split] = quotas[name] if drawn else None
            sources[name]["got"][split] = len(chosen)
            if split == "train":
                left = _draw_spare(chosen, len(parts[split]), config, name)
                sampled[name][SPARE] = parts[split].take(left)
                sources[name]["got"] |= {SPARE: len(left)} if config.domain_rows != 0 else {}
            if len(chosen) < quotas[name]:
                shortage = f"{split}: asked for {quotas[name]} rows, has {len(chosen)}"
                sources[name]["warnings"].append(shortage)
    return sampled


def _quotas(
    config: DataConfig, split: str, total: int | None, sizes: dict[str, int]
) -> tuple[dict[str, int], bool]:
    """Rows asked of each domain, and whether that is a choice at all or every row."""
    if split == "train" and config.samples_per_domain is not None:
        return dict.fromkeys(sizes, config.samples_per_domain), True
    if total is None:
        return sizes, False
    weights = domain_weights(sizes, shares=config.domain_shares, temperature=config.share_temperature)
    return allocate(total, weights), True


def _describe_held_out(
    held: Splits, config: DataConfig, sources: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Name, source, label ids and rows by label of the domain that is only tested. Raises DataError."""
    ((name, parts),) = held.items()
    tally = np.bincount(parts["test"].label, minlength=len(config.labels))
    labels = config.domains[name].labels
    if not tally.sum():
        raise DataError(f"domain {name!r}: test has no rows left; it is held out, so give it test rows")
    return {
        "domain": name,
        "source": sources[name]["source"],
        "label_ids": [place for place, label in enumerate(config.labels) if label in labels],
        "counts": {label: int(tally[place]) for place, label in enumerate(config.labels) if label in labels},
    }


def _draw_domain(part: Prepared, quota: int, *, even: bool, seed: int, name: str) -> np.ndarray[Any, Any]:
    labels, counts = np.unique(part.label, return_counts=True)
    sizes = {str(label): int(count) for label, count in zip(labels, counts, strict=True)}
    weights = {label: 1.0 if even else float(size) for label, size in sizes.items()}
    given = allocate(min(quota, len(part)), weights, capacities=sizes)
    return draw(part.label, {int(label): count for label, count in given.items()}, seed=seed, name=name)


def _draw_spare(
    drawn: np.ndarray[Any, Any], rows: int, config: DataConfig, name: str
) -> np.ndarray[Any, Any]:
    """Ascending positions of up to `data.domain_rows` of the `rows` training rows that were not `drawn`."""
    if config.domain_rows == 0:
        return np.zeros(0, dtype=np.int64)
    left = np.setdiff1d(np.arange(rows), drawn)
    mixed = generator(config.seed, name, SPARE).permutation(left)
    return np.sort(mixed[: config.domain_rows])


def _counts(
    parts: Mapping[str, Prepared], domain: DomainConfig, labels: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    tallies = {
        split: np.bincount(part.label, minlength=len(labels))
        for split, part in parts.items()
        if split != SPARE  # their labels are not looked at
    }
    return {
        split: {label: int(tally[labels.index(label)]) for label in labels if label in domain.labels}
        for split, tally in tallies.items()
    }


def _check(
    name: str,
    parts: Mapping[str, Prepared],
    counts: Mapping[str, Mapping[str, int]],
    domain: DomainConfig,
    record: dict[str, Any],
    leaks: Mapping[str, Any],
) -> None:
    for split in counts:
        if len(parts[split]) == 0:
            raise DataError(
                f"domain {name!r}: {split} has no rows left ({leaks['dropped']} leaking rows went in all); "
                "give more data, or more samples, or correct the splits"
            )
        absent = [label for label in domain.labels if counts[split][label] == 0]
        if absent and split == "train":
            raise DataError(
                f"domain {name!r}: no training row is {absent[0]}, one of its labels {list(domain.labels)}; "
                "correct label_map or thresholds, raise train_samples, or declare only the labels that it has"
            )
        if absent:
            record["warnings"].append(f"{split}: no row is {' or '.join(absent)}")


def _write(
    sampled: Splits, split: str, config: DataConfig, folder: Path | None, *, named: str | None = None
) -> Any:
    """All domains' rows of one split in one seeded random order; with `named`, as rows of no known domain."""
    import datasets

    parts = [sampled[name][split] for name in config.domains if name in sampled]
    tables = [part.texts.select(part.rows) for part in parts]
    label = np.concatenate([part.label for part in parts]).astype(np.int64)
    domain = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if named is not None:
        domain = np.full_like(domain, -1)
    order = generator(config.seed, "order", split).permutation(len(label))
    texts = datasets.concatenate_datasets(tables).select(order)

    def batches() -> Iterator[Batch]:
        start = 0
        for batch in texts.iter(batch_size=4096):
            rows = order[start : start + len(batch["text"])]
            row_id = np.arange(start, start + len(rows))
            yield {"text": batch["text"], "label": label[rows], "domain_id": domain[rows], "row_id": row_id}
            start += len(rows)

    path = None if folder is None else folder / f"{named or split}.arrow"
    return write_table(batches(), types=TYPES, path=path)
