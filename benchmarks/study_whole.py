"""The kept models of a finished sweep, asked about the whole test splits.

A reduced sweep evaluates on a sample of the test rows, to save time in each of its units. Its models are
kept, and the leak guard saw the whole evaluation splits before any row was sampled, so the others can be
asked afterwards, in seconds a model. What each said is kept beside it: a stopped run goes on where it was.
Of a sweep that saw whole splits the units' own predictions are read, and no model is asked.

It knows bundles, corpora and unit records, and no training.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study_where import where

BATCH = 64
NAME = "whole-test.parquet"


def ask_whole(folder: Path, data: Path, *, samples: int = 2000) -> Path:
    """Write `folder`/whole.json: the sweep's results.json with the figures of whole test splits.

    Args:
        folder: of a sweep; it holds `results`.
        data: where the domains' files are now.
        samples: bootstrap resamples.

    Raises:
        SystemExit: the training rows that `data` gives are not those of the sweep.
    """
    from trainer_job.config import RunConfig
    from trainer_job.data import load_corpus, tokenize
    from trainer_job.files import plain
    from trainer_job.prepare import load_tokenizer
    from trainer_job.units import Layout, finished_records

    record = json.loads((folder / "results" / "results.json").read_text(encoding="utf-8"))
    config = RunConfig.model_validate(record["config"])
    whole = config.data.model_copy(update={"root": data, "test_samples": None})
    corpus = load_corpus(whole, cache=config.cache)
    _check_training_rows(record, corpus)
    tables = tokenize(corpus, load_tokenizer(config), max_length=config.model.max_length, cache=config.cache)
    layout = Layout(folder / "results", folder / "logs")
    units = finished_records(layout, config_digest=record["config_hash"])
    name = "predictions.parquet" if config.data.test_samples is None else NAME
    for number, unit in enumerate(units):
        path = layout.results / unit["path"] / name
        if name == NAME and not _asked(path):
            print(f"{folder.name}: {unit['path']}, {number + 1} of {len(units)}", file=sys.stderr, flush=True)
            _ask(path, unit, tables["test"], corpus.labels)
    cut = np.asarray(tables["test"]["length"]) >= config.model.max_length
    selected = record["selected"]
    record |= _figures(config, layout, units, corpus, name=name, cut=cut, selected=selected, samples=samples)
    target = folder / "whole.json"
    target.write_text(json.dumps(plain(record), indent=1), encoding="utf-8")
    return target


def _figures(
    config: Any,
    layout: Any,
    units: list[dict[str, Any]],
    corpus: Any,
    *,
    name: str,
    cut: np.ndarray,
    selected: Any,
    samples: int,
) -> dict[str, Any]:
    """What results.json says of test, of the whole splits instead; what was chosen on validation stays."""
    from trainer_job.baselines import majority, tfidf_logreg
    from trainer_job.evaluation import metrics_of
    from trainer_job.predictions import read_arrays
    from trainer_job.results import load_predictions, summarise
    from trainer_job.selection import Predictions, compare, verdict

    said: dict[str, list[np.ndarray]] = {}
    seeds: dict[str, list[int]] = {}
    gold, places = np.asarray(corpus.splits["test"]["label"], dtype=np.int64), []
    for unit in units:
        rows = read_arrays(layout.results / unit["path"] / name, labels=corpus.labels)["test"]
        unit["test"] = metrics_of(rows, corpus, temperature=unit["calibration"]["temperature"])
        said.setdefault(unit["variant"], []).append(rows["logits"].argmax(axis=1))
        seeds.setdefault(unit["variant"], []).append(unit["seed"])
        places.append(where(unit, said[unit["variant"]][-1] == gold, cut))
    splits = {
        "validation": load_predictions(layout, units, "validation"),
        "test": Predictions(gold, {name: np.stack(runs) for name, runs in said.items()}, seeds),
    }
    comparisons = [entry for split, one in splits.items() for entry in compare(split, one, samples=samples)]
    variants = summarise(config, units, splits, samples=samples)
    baselines = {"majority": majority(corpus), "tfidf_logreg": tfidf_logreg(corpus)}
    words = verdict(selected, comparisons, variants, baselines)
    figures = {"variants": variants, "comparisons": comparisons, "baselines": baselines, "verdict": words}
    return figures | {"where": places}


def _asked(path: Path) -> bool:
    """Whether the unit's answers are there, and of its present weights."""
    made = path.with_name("unit.json").stat().st_mtime_ns
    return path.is_file() and path.stat().st_mtime_ns >= made


def _check_training_rows(record: Mapping[str, Any], corpus: Any) -> None:
    """The counts by label of every training split must be those that the sweep recorded."""
    for domain in corpus.domains:
        had, has = record["data"]["domains"][domain]["counts"]["train"], corpus.counts[domain]["train"]
        if had != has:
            raise SystemExit(f"{domain}: trained on {had}, these files give {has}; name the sweep's own data")


def _ask(path: Path, unit: Mapping[str, Any], table: Any, labels: tuple[str, ...]) -> None:
    """Write what the unit's bundle says about every row of `table`, the domain unknown."""
    import torch

    from stratified_models.bundle import load_model, read_bundle
    from stratified_models.sources import quiet
    from trainer_job.batches import by_length
    from trainer_job.data.collate import KEYS, Collator
    from trainer_job.predictions import write_predictions

    with quiet():
        model = load_model(read_bundle(path.parent / "bundle"))
    rows, collate = by_length(table), Collator(int(model.config.pad_token_id or 0))
    parts: dict[str, list[np.ndarray]] = {}
    for at in range(0, len(rows), BATCH):
        batch = collate([rows[place] for place in range(at, min(at + BATCH, len(rows)))])
        found = {name: batch.pop(name) for name in KEYS}
        with torch.inference_mode():
            out = model(**batch)
        found |= {"logits": out.logits, "domain_said": out.domain_logits.argmax(-1), "energy": out.energy}
        for name, values in found.items():
            parts.setdefault(name, []).append(values.numpy())
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    order = np.argsort(arrays["row_id"], kind="stable")
    arrays = {name: values[order] for name, values in arrays.items()}
    write_predictions(path, {"test": arrays}, labels=labels, temperature=unit["calibration"]["temperature"])
