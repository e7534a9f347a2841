"""After training: what is fitted on training rows to the finished encoder, the domain head, probes of later
blocks, the words beside them, and the out-of-domain score.

It does not know how any is computed; see `stratified_models.domain_fit`, `stratified_models.domain_probes`,
`stratified_models.domain_words`, `stratified_models.unknown` and `stratified_models.left_out`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import torch
import torch.distributed as dist

from trainer_job.data.build import SPARE
from trainer_job.prepare import calibration_batches
from trainer_job.ranks import world_size
from trainer_job.training import UnitTrainer

if TYPE_CHECKING:
    from stratified_models.features import PooledRows
    from trainer_job.unit_run import UnitRun

SCORE_ROWS = 200  # a domain, where the domain head asks for none
NAMES = ("input_ids", "attention_mask", "domain_id")


def fit_to_encoder(run: UnitRun, trainer: UnitTrainer) -> dict[str, float]:
    """Fit what the configuration asks for to the same rows on every rank; one pass over them serves both.

    Returns the AUROC of each out-of-domain score over domains left out, empty where none was to be chosen.
    """
    config = run.config.model
    score = config.out_of_domain_score
    if config.domain_fit_rows == 0 and score == "energy":
        return {}
    from stratified_models.features import features_of

    wanted = config.domain_fit_rows or SCORE_ROWS
    batches = calibration_batches(run.prepared, rows_per_domain=wanted, names=NAMES)
    model: Any = trainer.model
    rows = features_of(model, batches)
    trainer.seen = None  # the last evaluation knew another head, and no such score
    if config.domain_fit_rows:
        known = _with_spare(run, model, _Known(batches, rows))
        _fit_domain_head(run, model, known)
        said = _fit_domain_probes(run, model, known)
        if config.domain_words:
            _fit_domain_words(run, model, known, said)
    return _fit_unknown(run, model, rows, score)


@dataclass(frozen=True)
class _Known:
    """Rows of known domain: their batches, what the head reads of them, and how much each counts, (M,)."""

    batches: list[dict[str, Any]]
    rows: PooledRows
    weights: torch.Tensor | None = None


def _with_spare(run: UnitRun, model: Any, drawn: _Known) -> _Known:
    """Those that were drawn and, where there are any, the spare ones; domains count as among the drawn."""
    from stratified_models.domain_fit import shared_weights
    from stratified_models.features import PooledRows, pooled_of

    table = run.prepared.tables.get(SPARE)
    if table is None:
        return drawn
    batches = calibration_batches(run.prepared, rows_per_domain=len(table), names=NAMES, split=SPARE)
    spare = pooled_of(model, _beating(run, batches))
    pairs = zip(drawn.rows[:3], spare[:3], strict=True)  # features, tokens and domains
    features, tokens, domains = (torch.cat(pair) for pair in pairs)
    rows = PooledRows(features, tokens, domains)
    weights = shared_weights(rows.domain_id, drawn.rows.domain_id)
    return _Known([*drawn.batches, *batches], rows, weights)


def _beating(run: UnitRun, batches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The batches, and a sign of progress with each: spare rows may be more than those of an epoch."""
    for batch in batches:
        run.heart.beat("fitting")
        yield batch


def _fit_domain_head(run: UnitRun, model: Any, known: _Known) -> None:
    """Fit the domain head to the end; every rank gets that of rank 0."""
    from stratified_models.domain_fit import fit_domain_head_

    found = fit_domain_head_(model, known.rows, weights=known.weights)
    if world_size() > 1:
        for parameter in (model.domain_head.weight, model.domain_head.bias):
            dist.broadcast(parameter.data, src=0)
    if run.rank == 0:
        log = structlog.get_logger("unit").bind(unit=run.unit.name)
        before, after = round(found.before, 4), round(found.after, 4)
        log.info("domain_head_fitted", rows=found.rows, loss_before=before, loss_after=after)


def _fit_domain_probes(run: UnitRun, model: Any, known: _Known) -> torch.Tensor | None:
    """Fit probes of as many later blocks as are asked for and there are; every rank gets those of rank 0.

    Returns what they say of the rows; None where there are no probes.
    """
    from stratified_models.domain_probes import deeper_features, fit_domain_probes_, most_blocks

    blocks = min(run.config.model.domain_blocks, most_blocks(model.config))
    if not blocks:
        return None
    features = deeper_features(model, _beating(run, known.batches), blocks=blocks)
    found = fit_domain_probes_(model, features, known.rows.domain_id, blocks=blocks, weights=known.weights)
    if world_size() > 1:
        for buffer in (model.domain_probes.weight, model.domain_probes.bias):
            dist.broadcast(buffer, src=0)
    if run.rank == 0:
        log = structlog.get_logger("unit").bind(unit=run.unit.name)
        log.info("domain_probes_fitted", blocks=blocks, rows=found.rows, loss_after=round(found.after, 4))
    return found.said


def _fit_domain_words(run: UnitRun, model: Any, known: _Known, said: torch.Tensor | None) -> None:
    """Fit the table of words to what the head, or the probes, leave unsaid; every rank has that of rank 0."""
    from stratified_models.domain_words import fit_domain_words_

    pairs = run.config.model.domain_pairs
    found = fit_domain_words_(model, known.batches, known.rows, weights=known.weights, pairs=pairs, said=said)
    if world_size() > 1:
        dist.broadcast(model.domain_words.table, src=0)
    if run.rank == 0:
        figures = {"loss_before": round(found.before, 4), "loss_after": round(found.after, 4)}
        structlog.get_logger("unit").info(
            "domain_words_fitted", unit=run.unit.name, words=found.words, **figures
        )


def _fit_unknown(run: UnitRun, model: Any, rows: PooledRows, score: str) -> dict[str, float]:
    """Fit the chosen score, or choose it; energy needs no fit."""
    from stratified_models.unknown import fit_unknown_

    left_out: dict[str, float] = {}
    if score == "auto":
        score, left_out = _choose(run, rows, ranks=model.config.ranks)
    if score != "energy":
        fit_unknown_(model, rows, score=score, seed=run.unit.seed)
    return left_out


def _choose(run: UnitRun, rows: PooledRows, *, ranks: Sequence[int]) -> tuple[str, dict[str, float]]:
    """The score that finds left-out domains best, as rank 0 sees it."""
    from stratified_models.left_out import choose_score

    choice: list[Any] = [choose_score(rows, ranks=ranks, seed=run.unit.seed) if run.rank == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(choice, src=0)
    score, left_out = choice[0]
    if run.rank == 0:
        figures = {name: round(value, 4) for name, value in left_out.items()}
        structlog.get_logger("unit").info(
            "out_of_domain_score_chosen", unit=run.unit.name, score=score, auroc=figures
        )
    return score, left_out
