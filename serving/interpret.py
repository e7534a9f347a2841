"""Raw outputs in, an answer out: calibration, domain, strata, warnings. Pure; knows no engine and no wire."""

from __future__ import annotations

import math
from collections.abc import Sequence

from serving.types import (
    AnswerWarning,
    Classification,
    DomainSource,
    Encoded,
    EngineOutput,
    ModelCard,
    Options,
    TokenStrata,
)


def softmax(logits: Sequence[float], *, temperature: float = 1.0) -> list[float]:
    """exp(z/T) / Σ exp(z/T); finite for any finite logits."""
    top = max(logits)
    powers = [math.exp((value - top) / temperature) for value in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def saliency(strata: Sequence[Sequence[float]], mean: Sequence[float]) -> list[float]:
    """How far each token's strata p are from the text's mean p̄: KL(p ‖ p̄), in nats, ≥ 0; 0 without strata."""
    if not mean:
        return [0.0] * len(strata)
    from stratified_models.diagnostics import divergence  # brings torch, which the ports must not wait for

    return [float(value) for value in divergence(strata, mean)]


def resolve_domain(card: ModelCard, name: str) -> tuple[int, DomainSource]:
    """The domain id that the engine is given (-1: none) and where the answer's domain will come from."""
    if not name:
        return -1, DomainSource.INFERRED
    index = card.domain_id(name)
    return index, DomainSource.GIVEN if index >= 0 else DomainSource.FALLBACK


def interpret(
    card: ModelCard, *, named: str, encoded: Encoded, output: EngineOutput, options: Options
) -> Classification:
    """The answer to one text for which the caller named the domain `named` ("" = none)."""
    given, source = resolve_domain(card, named)
    scores = softmax(output.logits, temperature=card.temperature)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    best = order[0]
    posterior = softmax(output.domain_logits) if output.domain_logits else []
    ranked = sorted(
        ((d.name, p) for d, p in zip(card.domains, posterior, strict=True)), key=lambda pair: -pair[1]
    )
    domain = card.domains[given].name if given >= 0 else (ranked[0][0] if ranked else "")
    strange = card.out_of_domain_threshold is not None and output.energy > card.out_of_domain_threshold
    return Classification(
        label=card.labels[best],
        label_index=best,
        score=scores[best],
        scores=tuple((card.labels[index], scores[index]) for index in order[: options.top_k or None]),
        domain=domain,
        domain_source=source,
        domain_scores=tuple(ranked),
        out_of_domain_score=output.energy,
        out_of_domain=strange,
        strata=output.occupancy,
        token_count=len(encoded.ids),
        original_token_count=encoded.original_count,
        model=card.version,
        logits=output.logits if options.raw_logits else (),
        tokens=_tokens(encoded, output) if options.explain else (),
        warnings=_warnings(card, given, source, card.labels[best], encoded, strange, options),
    )


def _tokens(encoded: Encoded, output: EngineOutput) -> tuple[TokenStrata, ...]:
    strata = output.strata or ((),) * len(encoded.ids)
    moved = saliency(strata, output.occupancy if output.strata else ())
    rows = zip(encoded.pieces, encoded.spans, strata, moved, strict=True)
    return tuple(TokenStrata(piece, start, end, share, value) for piece, (start, end), share, value in rows)


def _warnings(
    card: ModelCard,
    given: int,
    source: DomainSource,
    label: str,
    encoded: Encoded,
    strange: bool,
    options: Options,
) -> tuple[AnswerWarning, ...]:
    rules = (
        (AnswerWarning.TRUNCATED, encoded.truncated),
        (AnswerWarning.UNKNOWN_DOMAIN, source is DomainSource.FALLBACK),
        (AnswerWarning.OUT_OF_DOMAIN, strange),
        (AnswerWarning.LABEL_OUTSIDE_DOMAIN, given >= 0 and label not in card.domains[given].labels),
        (AnswerWarning.NO_STRATA, options.explain and not card.strata),
    )
    return tuple(warning for warning, holds in rules if holds)
