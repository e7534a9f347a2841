"""`stratified-train export`: a bundle as ONNX, and what the int8 file costs in accuracy, domain by domain.

The format is `stratified_models.onnx_export`'s; this module finds the validation rows, measures every file on
them in the runtime that will serve it, and refuses an int8 file that loses too much. It does not know the
Trainer.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import numpy.typing as npt

from stratified_models.bundle import PARITY_TEXTS, Bundle, read_bundle
from stratified_models.errors import BundleError, ExportError
from stratified_models.onnx_export import OnnxExport, export_onnx
from stratified_models.openvino_int8 import open_export
from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError, DataError, ExportRefused
from trainer_job.metrics import evaluate

BATCH_TOKENS = 512  # of a measured batch, with padding: like those of the service
CALIBRATION = 200  # rows that int8's scales are found on
COLUMNS = ("text", "label", "domain")


@dataclass(frozen=True)
class Rows:
    """Labelled texts; labels and domains are positions in the bundle's lists. `source` says where from."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    domains: tuple[int, ...]
    source: str


def export_bundle(
    directory: Path,
    *,
    quantize: Literal["int8"] | None,
    rows: Rows | None,
    max_loss: float,
    announce: Callable[[str], None] = lambda line: None,
) -> list[OnnxExport]:
    """Export the bundle in `directory`.

    Args:
        directory: the bundle; the files land in it.
        quantize: "int8" adds the quantised files; then `rows` are needed.
        rows: validation rows; some of every length are also what parity is shown on, and more what int8's
            scales are found on.
        max_loss: accuracy in points (0 to 100) that any domain may lose.
        announce: told why an int8 file is left out.

    Raises:
        ExportRefused: every int8 file loses more, or the graph does not compute what the model does.
        ConfigError: no bundle there, or int8 without rows.
    """
    if quantize is not None and (rows is None or not rows.texts):
        raise ConfigError(
            f"--quantize {quantize} needs validation rows to measure its loss; give --data FILE or --config"
        )
    try:
        bundle = read_bundle(directory)

        def measure(reference: Path, candidate: Path) -> Mapping[str, Any]:
            found = compare(bundle, reference, candidate, rows) if rows is not None else {}
            return {**accept(found, max_loss), "max_loss": max_loss}

        texts = PARITY_TEXTS if rows is None else sample_of_lengths(rows.texts)
        calibration = () if rows is None else sample_of_lengths(rows.texts, CALIBRATION)
        return export_onnx(
            directory,
            quantize=quantize,
            measure=measure,
            texts=texts,
            calibration=calibration,
            announce=announce,
        )
    except ExportError as error:
        raise ExportRefused(str(error)) from error
    except BundleError as error:
        raise ConfigError(f"export: {error}") from error


def sample_of_lengths(texts: Sequence[str], count: int = 24) -> list[str]:
    """`count` of the texts, spread evenly from the shortest to the longest."""
    ordered = sorted(texts, key=len)
    places = np.unique(np.linspace(0, len(ordered) - 1, num=min(count, len(ordered))).astype(int))
    return [ordered[place] for place in places]


def compare(bundle: Bundle, reference: Path, candidate: Path, rows: Rows) -> dict[str, Any]:
    """Accuracy and macro-F1 of both files in each domain, domain inferred; losses in points of accuracy."""
    encoded = _encode(bundle, rows.texts)
    before, after = (_logits(bundle, path, encoded) for path in (reference, candidate))
    domains = [domain.name for domain in bundle.manifest.domains]
    labels = bundle.manifest.labels
    common: dict[str, Any] = {
        "domains": domains,
        "label_names": labels,
        "domain_labels": [[labels.index(label) for label in d.labels] for d in bundle.manifest.domains],
    }
    gold, places = np.asarray(rows.labels), np.asarray(rows.domains)
    old, new = (evaluate(logits, gold, places, **common)["per_domain"] for logits in (before, after))
    same = before.argmax(axis=1) == after.argmax(axis=1)
    per_domain = {
        name: {
            "n": int(old[name]["n"]),
            "accuracy_fp32": float(old[name]["accuracy"]),
            "accuracy_int8": float(new[name]["accuracy"]),
            "loss_points": round(100 * float(old[name]["accuracy"] - new[name]["accuracy"]), 4),
            "macro_f1_fp32": float(old[name]["macro_f1"]),
            "macro_f1_int8": float(new[name]["macro_f1"]),
            "agreement": float(same[places == place].mean()),
        }
        for place, name in enumerate(domains)
        if (places == place).any()
    }
    return {
        "rows": len(gold),
        "source": rows.source,
        "agreement": float(same.mean()),
        "per_domain": per_domain,
    }


def accept(quality: dict[str, Any], max_loss: float) -> dict[str, Any]:
    """`quality`, if no domain loses more than `max_loss` points. Raises ExportError."""
    losses = {name: entry["loss_points"] for name, entry in quality["per_domain"].items()}
    worst = max(losses, key=lambda name: losses[name])
    if not losses[worst] <= max_loss:  # nan accepts nothing
        count = quality["per_domain"][worst]["n"]
        raise ExportError(
            f"int8 loses {losses[worst]:.2f} points of accuracy on {worst} ({count} rows, so one row is "
            f"{100 / count:.2f}), above --max-loss {max_loss}; keep fp32, give more rows, or raise it"
        )
    return {**quality, "worst_domain": {"name": worst, "loss_points": losses[worst]}}


def find_rows(directory: Path, *, data: Path | None, config: RunConfig | None, needed: bool) -> Rows | None:
    """Validation rows: of `data`, else of `config`, else, if `needed`, of the sweep that made the bundle.

    Raises ConfigError when there is no bundle, DataError when the rows do not fit it.
    """
    try:
        bundle = read_bundle(directory, verify=False)
    except BundleError as error:
        raise ConfigError(f"export: {error}") from error
    if data is not None:
        return rows_from_file(data, bundle)
    config = config if config is not None or not needed else recorded_config(directory)
    return None if config is None else rows_from_config(config, bundle)


def print_exports(written: Sequence[OnnxExport], out: TextIO) -> None:
    """One line a file, and one a domain of what was measured."""
    for item in written:
        entry = item.export
        print(
            f"{item.path}: {item.bytes / 1e6:.1f} MB, logits within {entry.error:.1e} of the model's, "
            f"same label on {entry.agreement:.1%} of {entry.texts} texts",
            file=out,
        )
        for name, found in entry.quality.get("per_domain", {}).items():
            print(
                f"  {name}: accuracy {found['accuracy_fp32']:.4f} → {found['accuracy_int8']:.4f} "
                f"({-found['loss_points']:+.2f} points of {found['n']} rows), "
                f"macro-F1 {found['macro_f1_fp32']:.4f} → {found['macro_f1_int8']:.4f}",
                file=out,
            )


def rows_from_config(config: RunConfig, bundle: Bundle) -> Rows:
    """The validation split of a run's configuration, its labels and domains in the bundle's order."""
    from trainer_job.data import load_corpus

    corpus = load_corpus(config.data, cache=config.cache)
    split = corpus.splits["validation"]
    records = (
        {"text": text, "label": corpus.labels[label], "domain": corpus.domains[domain]}
        for text, label, domain in zip(split["text"], split["label"], split["domain_id"], strict=True)
    )
    return _rows(records, bundle, f"validation split, corpus {corpus.fingerprint[:12]}")


def rows_from_file(path: Path, bundle: Bundle) -> Rows:
    """Rows of a .jsonl, .csv or .tsv file with columns text, label and domain. Raises DataError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:  # with or without a byte order mark
            if path.suffix == ".jsonl":
                records = [json.loads(line) for line in stream if line.strip()]
            elif path.suffix in (".csv", ".tsv"):
                records = list(csv.DictReader(stream, delimiter="," if path.suffix == ".csv" else "\t"))
            else:
                raise DataError(f"--data {path}: {path.suffix!r} is not read; give .jsonl, .csv or .tsv")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"--data {path}: cannot be read ({reason}); correct the file") from error
    return _rows(records, bundle, path.name)


def recorded_config(directory: Path) -> RunConfig | None:
    """The configuration of the sweep whose results folder holds `directory`; None without one."""
    for folder in list(directory.resolve().parents)[:3]:
        path = folder / ".state" / "sweep.json"
        if path.is_file():
            return RunConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))["config"])
    return None


def _rows(records: Any, bundle: Bundle, source: str) -> Rows:
    labels = {name: place for place, name in enumerate(bundle.manifest.labels)}
    domains = {domain.name: place for place, domain in enumerate(bundle.manifest.domains)}
    texts, golds, places = [], [], []
    for number, record in enumerate(records, start=1):
        missing = [name for name in COLUMNS if record.get(name) is None]
        if missing:
            raise DataError(
                f"{source}, row {number}: no {missing[0]!r}; give the columns {', '.join(COLUMNS)}"
            )
        for column, known in (("label", labels), ("domain", domains)):
            if record[column] not in known:
                raise DataError(
                    f"{source}, row {number}: {column} {record[column]!r} is none of the bundle's "
                    f"{', '.join(known)}; correct it"
                )
        texts.append(str(record["text"]))
        golds.append(labels[record["label"]])
        places.append(domains[record["domain"]])
    if not texts:
        raise DataError(f"{source}: holds no rows; give at least one a domain")
    return Rows(tuple(texts), tuple(golds), tuple(places), source)


def _encode(bundle: Bundle, texts: Sequence[str]) -> list[list[int]]:
    from stratified_models import load_tokenizer

    longest = bundle.manifest.max_length
    tokenizer = load_tokenizer(bundle.path, max_length=longest)
    found: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    return found


def _logits(bundle: Bundle, path: Path, encoded: Sequence[list[int]]) -> npt.NDArray[np.float64]:
    """Logits (n, C) of every row, domain unknown."""
    config = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    model = open_export(path, pad=int(config.get("pad_token_id") or 0), threads=0)
    found = np.zeros((len(encoded), len(bundle.manifest.labels)))
    for batch in _batches([len(row) for row in encoded]):
        reply = model.run([encoded[place] for place in batch], [-1] * len(batch), outputs=["logits"])
        found[batch] = reply["logits"]
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows of like length, shortest first, up to `BATCH_TOKENS` with padding."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
