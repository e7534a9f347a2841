"""From a bundle and texts to `inspect.json` and `inspect.html`: what the command of that name does.

It reads a model and writes two files; it trains nothing and changes no bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from stratified_models.bundle import Bundle, load_model, read_bundle
from stratified_models.errors import ModelError
from trainer_job.domain_inference import domain_inference
from trainer_job.errors import WeightsError
from trainer_job.files import plain, write_json, write_text
from trainer_job.inspection import figures
from trainer_job.inspection.drawing import draw
from trainer_job.inspection.reading import Reading, read_model, read_rows
from trainer_job.inspection.strange import foreign_rows, strange_figures, unseen_domains
from trainer_job.inspection.texts import Texts, find_texts


@dataclass(frozen=True)
class Inspection:
    """What to look at, and how closely."""

    directory: Path
    data: str
    split: str = "validation"
    tokens: int = 4000
    texts: tuple[str, ...] = ()
    before: bool = False
    seed: int = 0


def inspect(order: Inspection, settings: Sequence[str], environ: Any) -> dict[str, Any]:
    """The record of an inspection. Raises ConfigError, DataError, WeightsError."""
    from stratified_models.tokenizer import load_tokenizer

    log = structlog.get_logger("inspect")
    try:
        bundle = read_bundle(order.directory)
        model = load_model(bundle)
        tokenizer = load_tokenizer(bundle.path, max_length=bundle.manifest.max_length)
    except ModelError as error:
        raise WeightsError(str(error)) from error
    before = load_before(bundle, model.config) if order.before else None
    names = [domain.name for domain in bundle.manifest.domains]
    texts, source = find_texts(
        order.data,
        split=order.split,
        labels=bundle.manifest.labels,
        domains=names,
        seed=order.seed,
        settings=settings,
        environ=environ,
    )
    log.info("reading", texts=len(texts.texts), source=source)
    reading = read_model(model, tokenizer, texts, tokens=order.tokens, seed=order.seed)
    layer = model.config.gate_layer
    log.info("measuring", tokens=len(reading.row))
    record = {
        "schema_version": 1,
        "model": {
            "name": bundle.manifest.name,
            "version": bundle.manifest.version,
            "variant": bundle.manifest.variant,
            "control": model.config.control,
            "seed": bundle.manifest.seed,
        },
        "data": {
            "source": source,
            "texts": len(texts.texts),
            "tokens_read": reading.tokens_read,
            "tokens": len(reading.row),
        },
        "labels": list(bundle.manifest.labels),
        "domains": names,
        **measure(reading, layer=layer, ranks=model.config.ranks, seed=order.seed),
        "volume_before": None,
        "saliency": [explain(model, tokenizer, text) for text in order.texts],
    }
    record["unknown"] = left_out(reading, record["domains"], ranks=model.config.ranks, seed=order.seed)
    said = reading.domain_logits.argmax(axis=1)
    record["confusion"] = domain_inference(said, reading.domains, record["domains"])
    record["strange"] = strange(model, tokenizer, texts, reading, seed=order.seed)
    if before is not None:
        earlier = read_model(before, tokenizer, texts, tokens=order.tokens, seed=order.seed)
        same = np.array_equal(earlier.row, reading.row) and earlier.words == reading.words
        record["volume_before"] = figures.volume_figures(
            earlier, layer=layer, strata=reading.strata if same else None, seed=order.seed
        )
    return dict(plain(record))


def strange(
    model: Any, tokenizer: Any, texts: Texts, reading: Reading, *, seed: int
) -> dict[str, Any] | None:
    """How each score tells broken and foreign input, and domains never seen, from the texts at hand."""
    import torch

    foreign = foreign_rows(texts.texts, tokenizer, max_length=model.config.max_length, seed=seed)
    seen = {kind: read_rows(model, rows) for kind, rows in foreign.items()}
    geometry = None
    if model.gate is not None:
        geometry = {kind: values[1] for kind, values in seen.items()} | {"known": reading.geometry}
    foreign_read = {kind: values[0] for kind, values in seen.items()}
    for name, chosen in unseen_domains(texts).items():
        foreign_read[name] = reading.rows.take(torch.from_numpy(chosen))
        if geometry is not None:
            geometry[name] = geometry["known"][chosen]
    return strange_figures(reading.rows, foreign_read, geometry=geometry, seed=seed)


def left_out(
    reading: Reading, names: Sequence[str], *, ranks: Sequence[int], seed: int
) -> dict[str, Any] | None:
    """How each score finds each domain, alike ones together, that it was not fitted to; None with too few."""
    from stratified_models.left_out import leave_one_out, mean_of

    found = leave_one_out(reading.rows, ranks=ranks, seed=seed)
    if not found:
        return None
    mean = mean_of(found)
    by_name = {
        " and ".join(names[domain] for domain in out): {name: entry[name] for name in mean}
        for out, entry in found.items()
    }
    return {"scores": list(mean), "left_out": by_name, "mean": mean}


def measure(reading: Reading, *, layer: int, ranks: Sequence[int], seed: int) -> dict[str, Any]:
    """Every figure that needs the reading alone; `layer` is the one that the gate reads."""
    return {
        "strata": figures.strata_figures(reading, seed=seed),
        "dimension": figures.dimension_figures(reading, layer=layer, ranks=ranks, seed=seed),
        "volume": figures.volume_figures(reading, layer=layer, seed=seed),
        "examples": figures.example_figures(reading),
        "experts": figures.expert_figures(reading),
        "projection": figures.projection_figures(reading, layer=layer, seed=seed),
    }


def load_before(bundle: Bundle, config: Any) -> Any:
    """The backbone that the model was trained from, as a model without strata.

    Raises:
        WeightsError: it cannot be loaded, or its weights are others than those that the manifest names.
    """
    from stratified_models.loading import load_pretrained

    manifest = bundle.manifest
    try:
        model, report = load_pretrained(
            manifest.backbone.name,
            family=config.backbone_config.model_type,  # a converted checkpoint is converted again
            variant="none",
            labels=manifest.labels,
            domains=[domain.name for domain in manifest.domains],
            domain_labels=[list(range(len(manifest.labels)))] * len(manifest.domains),
            max_length=manifest.max_length,
            seed=0,
            gate_dim=config.gate_dim,
            pooling=config.pooling,
        )
    except ModelError as error:
        raise WeightsError(f"--before: {error}") from error
    wanted, found = manifest.backbone.sha256, report.backbone_sha256
    if wanted and found != wanted:
        raise WeightsError(
            f"--before: backbone {manifest.backbone.name!r} has sha256 {found[:12]}…, and this model was "
            f"trained from {wanted[:12]}…; put those weights where that name leads, or leave --before out"
        )
    return model.prepare_for_inference()


def explain(model: Any, tokenizer: Any, text: str) -> dict[str, Any]:
    """Saliency of every token of a text for the likeliest class."""
    import torch

    from stratified_models.saliency import token_saliency

    ids = tokenizer(text, truncation=True, max_length=model.config.max_length)["input_ids"]
    values, target = token_saliency(model, torch.tensor(ids))
    most = max(float(values.abs().max()), 1e-12)
    names = tokenizer.convert_ids_to_tokens(ids)
    return {
        "text": text,
        "label": model.config.labels[target],
        "tokens": [
            {"token": name, "saliency": float(value), "strength": abs(float(value)) / most}
            for name, value in zip(names, values, strict=True)
        ],
    }


def write(record: dict[str, Any], folder: Path) -> list[Path]:
    """Write inspect.json and inspect.html into `folder`; returns their paths."""
    from trainer_job.report import render

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "inspect.json", record)
    page = render("inspect.html", {"r": record, "images": draw(record)})
    write_text(folder / "inspect.html", page)
    return [folder / "inspect.json", folder / "inspect.html"]
