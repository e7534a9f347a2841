"""What all units of a sweep share, made once before any training: corpus, tokenizer, token tables, baselines.

Everything that can be refused is refused here: a missing domain, a missing backbone, a results folder of
other data. It does not know the Trainer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from trainer_job.config import RunConfig
from trainer_job.data import Collator, Corpus, load_corpus, tokenize
from trainer_job.errors import ResultsMismatch, WeightsError
from trainer_job.files import read_json, write_json
from trainer_job.ranks import barrier
from trainer_job.units import Layout, config_hash, control_of, finished_records

CALIBRATION_ROWS = 60  # a domain: about ten thousand content tokens in all


@dataclass(frozen=True)
class Prepared:
    """Inputs of every unit: `tables` holds each split as token ids, `collator` makes batches of them."""

    corpus: Corpus
    tokenizer: Any
    tables: dict[str, Any]
    collator: Collator


def load_tokenizer(config: RunConfig) -> Any:
    """The backbone's tokenizer. Raises WeightsError."""
    import stratified_models as sm

    try:
        return sm.load_tokenizer(
            sm.resolve_backbone(config.model.backbone),
            revision=config.model.revision,
            max_length=config.model.max_length,
        )
    except sm.ModelError as error:
        raise WeightsError(str(error)) from error


def load_model(config: RunConfig, corpus: Corpus, *, variant: str, seed: int) -> tuple[Any, Any]:
    """(model, LoadReport): pristine backbone plus new modules drawn from `seed`. Raises WeightsError.

    `variant` is a sweep's name of one, which may end in a control.
    """
    import stratified_models as sm
    from stratified_models.domain_words import check_pairs

    settings = config.model
    try:
        model, report = sm.load_pretrained(
            sm.resolve_backbone(settings.backbone),
            variant=variant.partition(":")[0],
            control=control_of(variant),
            matched_variant=settings.matched_variant,
            labels=corpus.labels,
            domains=corpus.domains,
            domain_labels=corpus.domain_labels,
            max_length=settings.max_length,
            seed=seed,
            revision=settings.revision,
            family=settings.family,
            pooling=settings.pooling,
            num_strata=settings.strata,
            gate_dim=settings.gate_dim,
            num_experts=settings.experts,
            dropout=settings.dropout,
            attention_dropout=settings.attention_dropout,
            domain_bias=settings.domain_bias,
            domain_dropout=settings.domain_dropout,
            domain_loss=settings.domain_loss,
            geometry_loss=settings.geometry_loss,
            balance_loss=settings.balance_loss,
            mask_absent_labels=config.data.mask_absent_labels,
            label_smoothing=config.training.label_smoothing,
        )
        check_pairs(model.config.backbone_config.vocab_size, settings.domain_pairs)  # not after training
    except sm.ModelError as error:
        raise WeightsError(str(error)) from error
    return model, report


def check_backbone(layout: Layout, digest: str) -> None:
    """Every arm of a sweep starts from the same pristine weights. Raises WeightsError when they differ."""
    path = layout.state / "backbone.json"
    recorded = (read_json(path) or {}).get("sha256")
    if recorded is None:
        write_json(path, {"sha256": digest})
    elif recorded != digest:
        raise WeightsError(
            f"backbone sha256 {digest[:12]}… differs from {recorded[:12]}…, from which this sweep's other "
            "units "
            "started; every arm starts from the same weights: restore the backbone or set another `results`"
        )


def prepare(config: RunConfig, layout: Layout, *, signature: str, rank: int) -> Prepared:
    """Load, check, tokenise and record. Rank 0 fills the cache, the others read it.

    Raises DataError, WeightsError, ResultsMismatch.
    """
    log = structlog.get_logger("prepare")
    began = time.perf_counter()
    if rank > 0:
        barrier()
    tokenizer = load_tokenizer(config)
    corpus = load_corpus(config.data, cache=config.cache)
    tables = tokenize(corpus, tokenizer, max_length=config.model.max_length, cache=config.cache)
    if rank == 0:
        _record(config, layout, corpus, tables, signature)
        barrier()
        rows = {split: len(table) for split, table in tables.items()}
        for name, source in corpus.sources.items():
            for warning in source["warnings"]:
                log.warning("data", domain=name, warning=warning)
        log.info(
            "data_ready",
            rows=rows,
            seconds=round(time.perf_counter() - began, 1),
            leaks=corpus.leaks.get("dropped"),
        )
    collator = Collator(tokenizer.pad_token_id, limit=config.model.max_length)
    return Prepared(corpus, tokenizer, tables, collator)


def _record(
    config: RunConfig, layout: Layout, corpus: Corpus, tables: dict[str, Any], signature: str
) -> None:
    path = layout.state / "data.json"
    earlier = read_json(path)
    if earlier and earlier["fingerprint"] != corpus.fingerprint:
        if finished_records(layout, config_digest=config_hash(config)):
            raise ResultsMismatch(
                f"{layout.results}: its units were trained on data {earlier['fingerprint'][:12]}…, the "
                "sources now "
                f"give {corpus.fingerprint[:12]}…; one folder holds one experiment: set another `results` or "
                "restore the data"
            )
        (layout.state / "baselines.json").unlink(missing_ok=True)
    baselines(config, layout, corpus)
    write_json(
        path,
        {
            "fingerprint": corpus.fingerprint,
            "signature": signature,
            "labels": corpus.labels,
            "domain_names": corpus.domains,
            "rows": {split: len(table) for split, table in tables.items()},
            "tokens": {split: int(sum(table["length"])) for split, table in tables.items()},
            "domains": {
                name: {**corpus.sources[name], "counts": corpus.counts[name]} for name in corpus.domains
            },
            "leaks": corpus.leaks,
            "held_out": corpus.held_out,
        },
    )


def baselines(config: RunConfig, layout: Layout, corpus: Corpus) -> dict[str, Any]:
    """Majority class and TF-IDF with logistic regression on exactly the training rows; computed once a data
    set.
    """
    path = layout.state / "baselines.json"
    kept = read_json(path)
    if kept and kept.get("fingerprint") == corpus.fingerprint:
        return kept
    from trainer_job.baselines import majority, tfidf_logreg

    made = {
        "fingerprint": corpus.fingerprint,
        "majority": majority(corpus),
        "tfidf_logreg": tfidf_logreg(corpus),
    }
    write_json(path, made)
    return made


def calibration_batches(
    prepared: Prepared,
    *,
    rows_per_domain: int = CALIBRATION_ROWS,
    names: Sequence[str] = ("input_ids", "attention_mask"),
    split: str = "train",
) -> list[dict[str, Any]]:
    """Batches of `input_ids` and `attention_mask` from the first rows of each domain, for the gate's start.

    The corpus is shuffled already, so the first rows are a sample; every unit gets the same ones.
    """
    table = prepared.tables[split]
    taken: dict[int, int] = {}
    chosen = []
    for place, domain in enumerate(table["domain_id"]):
        if taken.get(domain, 0) < rows_per_domain:
            taken[domain] = taken.get(domain, 0) + 1
            chosen.append(place)
    chosen.sort(key=lambda place: table[place]["length"])
    batches = []
    for at in range(0, len(chosen), 32):
        batch = prepared.collator([table[place] for place in chosen[at : at + 32]])
        batches.append({name: batch[name] for name in names})
    return batches
