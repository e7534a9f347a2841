"""Describing a corpus for people: counts, lengths, what was dropped and why, and a few rows to look at.

It does not know models. `stratified-train data` prints it, so that data are looked at before a GPU is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from trainer_job.config import SPLITS
from trainer_job.data.build import SPARE
from trainer_job.data.corpus import Corpus

PERCENTILES = (5, 50, 95, 100)
TEXT_WIDTH = 96


def word_lengths(corpus: Corpus, split: str) -> dict[str, list[int]]:
    """Words a text by domain: the 5th, 50th and 95th percentile, and the longest."""
    lengths: dict[int, list[int]] = {place: [] for place in range(len(corpus.domains))}
    for batch in corpus.splits[split].iter(batch_size=4096):
        for text, domain in zip(batch["text"], batch["domain_id"], strict=True):
            lengths[domain].append(len(text.split()))
    return {corpus.domains[place]: _percentiles(np.asarray(found)) for place, found in lengths.items()}


def print_corpus(corpus: Corpus, out: TextIO, *, samples: int = 2) -> None:
    """Print the whole account of a corpus.

    Args:
        corpus: what `load_corpus` returned.
        out: where to; plain text, tables as wide as they need.
        samples: training rows shown for each domain × label.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=out, width=120, highlight=False)
    for title, columns, rows in (_counts(corpus), _lengths(corpus), _sources(corpus), _leaks(corpus)):
        table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for line in _notes(corpus):
        console.print(line, markup=False)
    console.print()
    for line in _samples(corpus, samples):
        console.print(line, markup=False, no_wrap=True, overflow="ellipsis")
    console.print(f"\nfingerprint {corpus.fingerprint}", markup=False)


Block = tuple[str, list[str], list[list[str]]]


def _counts(corpus: Corpus) -> Block:
    rows = [
        [
            name,
            split,
            *(_number(corpus.counts[name][split].get(label)) for label in corpus.labels),
            f"{sum(corpus.counts[name][split].values()):,}",
        ]
        for name in corpus.domains
        for split in SPLITS
    ]
    return "Rows by domain, split and label", ["domain", "split", *corpus.labels, "all"], rows


def _lengths(corpus: Corpus) -> Block:
    found = word_lengths(corpus, "train")
    rows = [[name, *(f"{value:,}" for value in values)] for name, values in found.items()]
    return "Words a training text", ["domain", "5 %", "median", "95 %", "longest"], rows


def _sources(corpus: Corpus) -> Block:
    columns = ["domain", "source", "read", "outside where", "empty", "repeats"]
    rows = [
        [
            name,
            record["source"],
            *(f"{sum(record[key].values()):,}" for key in ("read", "filtered", "empty", "duplicates")),
        ]
        for name, record in corpus.sources.items()
    ]
    return "What the sources gave", columns, rows


def _leaks(corpus: Corpus) -> Block:
    rows = [
        [
            pair["kind"],
            f"{pair['from_domain']}/{pair['from_split']}",
            f"{pair['in_domain']}/{pair['in_split']}",
            f"{pair['dropped']:,}",
            f"{pair['texts']:,}",
            pair["example"][:40],
        ]
        for pair in corpus.leaks["pairs"]
    ]
    verb = "kept" if corpus.leaks["kept"] else "dropped"
    title = f"Leaks: {corpus.leaks['found']:,} rows stood in an evaluation split and were {verb}"
    return title, ["kind", "rows of", "stand in", "rows", "texts met", "example"], rows


def _notes(corpus: Corpus) -> Iterator[str]:
    if corpus.held_out is not None:
        rows = sum(corpus.held_out["counts"].values())
        yield f"{corpus.held_out['domain']} is held out: {rows:,} test rows, none to learn or choose from."
    if SPARE in corpus.splits:
        yield f"{len(corpus.splits[SPARE]):,} rows beside them teach the domain head their domain alone."
    yield f"{corpus.leaks['conflicting_labels']:,} texts carry more than one label."
    for name, record in corpus.sources.items():
        for warning in record["warnings"]:
            yield f"note: {name}: {warning}"


def _samples(corpus: Corpus, samples: int) -> Iterator[str]:
    """The first rows of each stratum, which the corpus holds in random order."""
    wanted = {(domain, label): samples for domain, ids in enumerate(corpus.domain_labels) for label in ids}
    found: dict[tuple[int, int], list[str]] = {stratum: [] for stratum in wanted}
    for row in corpus.splits["train"]:
        stratum = (row["domain_id"], row["label"])
        if wanted.get(stratum, 0) > 0:
            wanted[stratum] -= 1
            found[stratum].append(row["text"][:TEXT_WIDTH])
        if not any(wanted.values()):
            break
    for (domain, label), texts in found.items():
        for text in texts:
            yield f"{corpus.domains[domain]} {corpus.labels[label]}: {text}"


def _percentiles(lengths: npt.NDArray[Any]) -> list[int]:
    return (
        [int(value) for value in np.percentile(lengths, PERCENTILES)]
        if len(lengths)
        else [0] * len(PERCENTILES)
    )


def _number(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"
