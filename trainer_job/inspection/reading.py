"""A model run over texts, kept token by token: what every figure of an inspection is computed from.

It knows the model's library, not what the figures are. M tokens, R texts, D width, K strata, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer_job.errors import DataError
from trainer_job.inspection.texts import Texts

if TYPE_CHECKING:
    from stratified_models.features import PooledRows

BATCH = 32


@dataclass(frozen=True)
class Reading:
    """Content tokens (a sample, spread over the texts), and the texts themselves.

    Attributes:
        words: the tokens as the tokenizer spells them, (M,).
        row: which text each comes from, (M,).
        states: by layer, embeddings first, (M, D).
        strata: posterior, (M, K); None for a model without strata.
        routing: by expert block, router probabilities, (M, E).
        chosen: by expert block, ids of the experts that answered, (M, 2).
        labels, domains: of the texts, (R,).
        rows: the texts as domain head and gate read them.
        domain_logits: what the model says of the texts' domains, (R, N).
        geometry: the gate's out-of-domain score of the texts, (R,); NaN without a gate.
        tokens_read: content tokens before sampling.
    """

    words: list[str]
    row: np.ndarray
    states: list[np.ndarray]
    strata: np.ndarray | None
    routing: list[np.ndarray]
    chosen: list[np.ndarray]
    labels: np.ndarray
    domains: np.ndarray
    rows: PooledRows
    domain_logits: np.ndarray
    geometry: np.ndarray
    tokens_read: int


@dataclass
class _Store:
    """What batches leave behind."""

    words: list[str] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    states: list[list[np.ndarray]] = field(default_factory=list)
    strata: list[np.ndarray] = field(default_factory=list)
    routing: list[list[np.ndarray]] = field(default_factory=list)
    chosen: list[list[np.ndarray]] = field(default_factory=list)
    read: int = 0


def read_model(model: Any, tokenizer: Any, texts: Texts, *, tokens: int, seed: int = 0) -> Reading:
    """Run `model` over the texts and keep about `tokens` content tokens, drawn evenly over the texts."""
    import torch

    from stratified_models.features import features_of
    from stratified_models.objective import geometry
    from stratified_models.tracing import trace

    rng = np.random.default_rng(seed)
    ids = tokenizer(texts.texts, truncation=True, max_length=model.config.max_length)["input_ids"]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # like lengths together
    each = max(1, -(-tokens // len(ids)))
    store = _Store()
    said = np.zeros((len(ids), len(model.config.domains)), np.float32)
    unlikely = np.full(len(ids), np.nan)
    batches = _batches(model, ids, order, texts.domains)
    for at, batch in zip(range(0, len(order), BATCH), batches, strict=True):
        places, input_ids = order[at : at + BATCH], batch["input_ids"]
        seen = trace(model, input_ids.to(model.device), batch["attention_mask"].to(model.device))
        said[places] = seen.domain_logits.float().cpu().numpy()
        if seen.gate is not None and seen.gate.log_likelihood is not None:
            score = geometry(seen.gate.log_likelihood, seen.content, model.config.gate_dim)
            unlikely[places] = score.float().cpu().numpy()
        _keep(store, seen, input_ids.numpy(), places, tokenizer, each=each, rng=rng)
    if not store.row:
        raise DataError("the texts hold no content token; give texts with words")
    return Reading(
        words=store.words,
        row=np.array(store.row),
        states=[np.concatenate(layer) for layer in store.states],
        strata=np.concatenate(store.strata) if store.strata else None,
        routing=[np.concatenate(block) for block in store.routing],
        chosen=[np.concatenate(block) for block in store.chosen],
        labels=texts.labels,
        domains=texts.domains,
        rows=features_of(model, batches, seed=seed).take(torch.from_numpy(np.argsort(order))),
        domain_logits=said,
        geometry=unlikely,
        tokens_read=store.read,
    )


def _batches(
    model: Any, ids: Sequence[Sequence[int]], order: Sequence[int], domains: np.ndarray
) -> list[dict[str, Any]]:
    """The texts by `order`, as the model takes them."""
    import torch

    batches = []
    for at in range(0, len(order), BATCH):
        places = order[at : at + BATCH]
        input_ids, mask = _padded([ids[place] for place in places], int(model.config.pad_token_id or 0))
        known = torch.from_numpy(domains[places]).long()
        batches.append({"input_ids": input_ids, "attention_mask": mask, "domain_id": known})
    return batches


def read_rows(model: Any, rows: Sequence[Sequence[int]]) -> tuple[PooledRows, np.ndarray]:
    """Rows of token ids as the domain head reads them, and the gate's score (R,), NaN without a gate; domain
    unknown."""
    import torch

    from stratified_models.objective import describe

    features = np.zeros((len(rows), model.config.hidden_size), np.float32)
    counts, geometry = np.zeros(len(rows), np.int64), np.full(len(rows), np.nan)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    for at in range(0, len(order), BATCH):
        places = order[at : at + BATCH]
        ids, mask = _padded([rows[place] for place in places], int(model.config.pad_token_id or 0))
        with torch.inference_mode():
            encoded = model.encode(ids.to(model.device), mask.to(model.device), every_token=False)
            features[places] = encoded.pooled.float().cpu().numpy()
            counts[places] = encoded.content.sum(-1).cpu().numpy()
            if encoded.gate is not None and encoded.gate.log_likelihood is not None:
                geometry[places] = describe(encoded, model.config)["geometry"].float().cpu().numpy()
    return pooled_rows(features, counts, np.full(len(rows), -1)), geometry


def pooled_rows(features: np.ndarray, counts: np.ndarray, domains: np.ndarray) -> PooledRows:
    """Of features (R, D), content tokens (R,) and domains (R,), −1 where unknown."""
    import torch

    from stratified_models.features import PooledRows

    return PooledRows(torch.from_numpy(features), torch.from_numpy(counts), torch.from_numpy(domains).long())


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any]:
    """Ids and mask (B, T) of rows, filled with `pad`; T is at least 1."""
    import torch

    longest = max(1, *(len(row) for row in rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        mask[line, : len(row)] = 1
    return ids, mask


def _keep(
    store: _Store, seen: Any, ids: np.ndarray, places: list[int], tokenizer: Any, *, each: int, rng: Any
) -> None:
    """Draw up to `each` content tokens of every text of a batch."""
    content = seen.content.cpu().numpy()
    lines, columns = [], []
    for line in range(len(places)):
        found = np.flatnonzero(content[line])
        drawn = np.sort(rng.permutation(found)[:each])
        store.read += len(found)
        lines += [line] * len(drawn)
        columns += drawn.tolist()
    store.words += tokenizer.convert_ids_to_tokens(ids[lines, columns].tolist())
    store.row += [places[line] for line in lines]
    layers = [state[lines, columns].float().cpu().numpy() for state in seen.states]
    blocks = [block[lines, columns].float().cpu().numpy() for block in seen.router]
    chosen = [block[lines, columns].cpu().numpy() for block in seen.chosen]
    for kept, new in ((store.states, layers), (store.routing, blocks), (store.chosen, chosen)):
        if not kept:
            kept.extend([] for _ in new)
        for place, value in enumerate(new):
            kept[place].append(value)
    if seen.gate is not None:
        store.strata.append(seen.gate.posterior[lines, columns].float().cpu().numpy())
