"""What every layer made of a batch: the hidden states that `forward` does not keep.

For looking into a model, not for running it: everything is computed and kept. It follows the model's own walk
and knows no variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.gate import GateReading
from stratified_models.hooks import Strata
from stratified_models.objective import content_mean
from stratified_models.tokens import never_empty
from stratified_models.variants.moe import ExpertBlock

__all__ = ["Trace", "trace"]


class Trace(NamedTuple):
    """A batch seen from inside.

    Attributes:
        states: h^(0) … h^(L), each (B, T, D): embeddings, then every block's output.
        content: tokens that count, (B, T) bool.
        pooled: what the domain head reads, (B, D).
        domain_logits: what is said of the domains, (B, N).
        gate: the strata; None for a model without.
        router: per expert block, each token's probabilities over experts, (B, T, E).
        chosen: per expert block, ids of the experts that answer each token, (B, T, 2).
    """

    states: tuple[Tensor, ...]
    content: Tensor
    pooled: Tensor
    domain_logits: Tensor
    gate: GateReading | None
    router: tuple[Tensor, ...]
    chosen: tuple[Tensor, ...]


@torch.no_grad()
def trace(model: StratifiedForSequenceClassification, input_ids: Tensor, attention_mask: Tensor) -> Trace:
    """Run `model` over token ids (B, T) and keep what it made of them, domain unknown."""
    family, config = model.family, model.config
    # As the model does: where no text has a token, one position of padding stands for each.
    ids, seen = never_empty(input_ids, attention_mask)
    input_ids, attention_mask = cast(Tensor, ids), cast(Tensor, seen)
    hidden = family.embed(model.backbone, input_ids, None)
    valid, content = model._token_masks(input_ids, attention_mask, hidden)
    mask, strata = family.mask(valid), Strata.nothing(valid)
    states = [hidden]
    for index in range(config.gate_layer):
        states.append(model._run_block(index, states[-1], mask, strata)[0])
    read = family.gate_input(states[-1])
    pooled = content_mean(read, content)
    domain, words = model._read_domain(pooled, None, input_ids, content)
    gate = model._read_strata(read, pooled, content, domain.weights, input_ids)
    if gate is not None:
        strata = Strata(gate.posterior, gate.posterior, valid)
    routed: list[tuple[Tensor, Tensor]] = []
    for index in config.stratified_blocks:
        with _watching(model._hooks(index), strata, routed):
            states.append(model._run_block(index, states[-1], mask, strata)[0])
    deeper = states[config.gate_layer + 1 :][: config.domain_blocks]
    domain = model._read_deeper(domain, [content_mean(family.gate_input(h), content) for h in deeper], words)
    router, chosen = (tuple(block[part] for block in routed) for part in (0, 1))
    return Trace(tuple(states), content, pooled, domain.logits, gate, router, chosen)


@contextmanager
def _watching(hooks: nn.Module, strata: Strata, routed: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Add to `routed` what an expert block's router says of its tokens, and whom it chose, while the block
    runs."""
    if not isinstance(hooks, ExpertBlock):
        yield
        return

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # The ids as the block made them: its selection bias moves them away from the likeliest two.
        tokens, chosen = (given.view(*strata.valid.shape, -1) for given in inputs[:2])  # (B, T, D), (B, T, 2)
        routed.append((hooks.probabilities(tokens, strata), chosen))

    handle = hooks.experts.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
