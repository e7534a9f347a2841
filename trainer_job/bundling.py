"""From a trained unit to its bundle: the manifest's facts, the model card, and the copy for the variant's
best seed.

The format belongs to `stratified_models.bundle`; this module only fills it. It does not know the Trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stratified_models.bundle import (
    Backbone,
    Domain,
    Manifest,
    OutOfDomain,
    copy_bundle,
    read_bundle,
    write_bundle,
)
from stratified_models.errors import BundleError
from trainer_job.data import Corpus
from trainer_job.files import plain
from trainer_job.provenance import now
from trainer_job.selection import best_seed
from trainer_job.tables import figure, markdown
from trainer_job.units import Layout, finished_records


def domain_entries(corpus: Corpus) -> tuple[Domain, ...]:
    """Each domain with the labels that it has, and its share of the training rows."""
    sizes = [sum(corpus.counts[name]["train"].values()) for name in corpus.domains]
    total = max(1, sum(sizes))
    return tuple(
        Domain(name=name, labels=tuple(corpus.labels[place] for place in places), share=size / total)
        for name, places, size in zip(corpus.domains, corpus.domain_labels, sizes, strict=True)
    )


def _summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: metrics[name] for name in ("n", "accuracy", "accuracy_se", "macro_f1", "ece")},
        "per_domain": {
            name: {key: entry[key] for key in ("n", "accuracy", "macro_f1")}
            for name, entry in metrics["per_domain"].items()
        },
    }


def build_manifest(record: Mapping[str, Any], corpus: Corpus, *, max_length: int) -> Manifest:
    """The manifest of a unit's record, without files."""
    calibration, backbone = record["calibration"], record["backbone"]
    training = (
        "config_hash",
        "fingerprint",
        "steps",
        "epochs",
        "best_step",
        "precision",
        "processes",
        "weights_sha256",
    )
    return Manifest(
        name=f"stratified-{record['variant']}",
        version=record["weights_sha256"][:12],
        created=now(),
        variant=record["variant"],
        seed=record["seed"],
        backbone=Backbone(name=backbone["name"], sha256=backbone["sha256"]),
        labels=corpus.labels,
        domains=domain_entries(corpus),
        max_length=max_length,
        temperature=calibration["temperature"],
        out_of_domain=OutOfDomain(
            **{name: calibration["out_of_domain"][name] for name in ("score", "threshold", "quantile")}
        ),
        metrics=plain({split: _summary(record[split]) for split in ("validation", "test")}),
        training=plain({name: record[name] for name in training}),
    )


def model_card(record: Mapping[str, Any], corpus: Corpus) -> str:
    """README.md of a bundle: what it is, on what it was trained, how good it is, what it is not for."""
    test = record["test"]
    rows = [
        [name, str(entry["n"]), figure(entry["accuracy"]), figure(entry["macro_f1"]), figure(entry["ece"])]
        for name, entry in test["per_domain"].items()
    ]
    rows.append(
        ["all", str(test["n"]), figure(test["accuracy"]), figure(test["macro_f1"]), figure(test["ece"])]
    )
    sources = "\n".join(
        f"- {name}: {source['source']}; {source.get('licence') or 'licence not stated'}"
        for name, source in corpus.sources.items()
    )
    temperature = record["calibration"]["temperature"]
    header = "---\nlanguage: en\npipeline_tag: text-classification\ntags: [sentiment, stratified]\n---\n"
    return (
        f"{header}\n# Stratified sentiment: {record['variant']}, seed {record['seed']}\n\n"
        f"Classifies an English text as {', '.join(corpus.labels)}, with or without its domain "
        f"({', '.join(corpus.domains)}). Fine-tuned from {record['backbone']['name']}; "
        f"{record['parameters']:,} parameters.\n\n"
        f"Probabilities are softmax(logits / {temperature:.4f}); the temperature was fitted on "
        "validation.\n\n"
        "## On test, domain inferred\n\n"
        f"{markdown(['domain', 'rows', 'accuracy', 'macro-F1', 'ECE'], rows)}\n\n"
        f"Standard error of the pooled accuracy: {test['accuracy_se']:.3f}.\n\n"
        f"{_out_of_domain(record['calibration']['out_of_domain'])}\n\n"
        f"## Data\n\n{sources}\n\n"
        "## Limits\n\nTexts beyond the training domains, other languages and sarcasm are untested; the "
        "licence of "
        "the weights follows from the backbone and the data above. Not for decisions about people.\n\n"
        "## Use\n\n```python\nimport stratified_models  # registers the architecture\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "model = AutoModelForSequenceClassification.from_pretrained(FOLDER).prepare_for_inference()\n```\n"
    )


def _out_of_domain(bound: Mapping[str, Any]) -> str:
    """How the model tells that a text is of no domain, and why by that score, in words."""
    text = (
        f"A text counts as out of domain where the score `{bound['score']}` is above "
        f"{bound['threshold']:.3f}, as {1 - bound['quantile']:.0%} of validation rows are."
    )
    if bound.get("left_out"):
        figures = ", ".join(f"{name} {value:.2f}" for name, value in bound["left_out"].items())
        text += (
            " Each training domain was left out in turn, those that nothing tells apart together; AUROC of "
            f"finding it, in the mean: {figures}."
        )
    return text


def write_unit_bundle(
    folder: Path, *, model: Any, tokenizer: Any, corpus: Corpus, max_length: int, record: Mapping[str, Any]
) -> None:
    """Write the unit's bundle; the manifest comes last."""
    manifest = build_manifest(record, corpus, max_length=max_length)
    write_bundle(folder, model=model, tokenizer=tokenizer, manifest=manifest, card=model_card(record, corpus))


def refresh_variant(layout: Layout, record: Mapping[str, Any], *, config_digest: str) -> None:
    """Make the variant's folder the bundle of its best seed by validation, `record`'s unit included.

    A control gets none: its bundle stays with its unit, where no service looks.
    """
    if record["control"] is not None:
        return
    others = [
        item
        for item in finished_records(layout, config_digest=config_digest)
        if item["variant"] == record["variant"] and item["seed"] != record["seed"]
    ]
    best = best_seed([*others, record])
    target = layout.variant(record["variant"])
    source = layout.results / best["path"] / "bundle"
    try:
        current = read_bundle(target, verify=False).manifest
    except BundleError:
        current = None
    if current is None or (current.seed, current.version) != (best["seed"], best["weights_sha256"][:12]):
        copy_bundle(source, target)
