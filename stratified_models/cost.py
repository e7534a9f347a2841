"""What a forward pass costs: floating-point operations of the matrix products, per token.

It counts products alone (a multiply and an add are two operations), not norms, activations or softmax, and
every block in full, though the last one may compute a single position.

D width, F inner width, L blocks, H heads, T tokens, K strata, g coordinates, R largest rank, N domains, E
experts.
"""

from __future__ import annotations

from stratified_models.config import StratifiedConfig
from stratified_models.errors import ModelError
from stratified_models.registry import added_parameters, family_of
from stratified_models.variants.moe import ANSWERING

__all__ = ["flops_per_token"]


def flops_per_token(config: StratifiedConfig, length: int, *, dense_experts: bool = False) -> float:
    """Operations of one forward pass over a text of `length` tokens, divided by `length`.

    `dense_experts` counts every expert of `moe`, as exported models compute them, and not only the two
    chosen.
    """
    encoder, width = config.backbone_config, config.hidden_size
    family = family_of(encoder)
    inner = family.ffn_width(encoder)
    blocks = int(encoder.num_hidden_layers)
    plain = blocks * (2 * (4 * width**2 + 2 * width * inner) + 2 * 2 * length * width)
    heads = len(config.labels) + len(config.domains) + (width if family.dense_pooler else 0)
    once = 2 * width * heads / length  # pooler and heads, once a row
    if config.control == "matched":  # two operations for each of the adapter's parameters
        return float(plain + once + 2 * added_parameters(config, family, config.matched_variant))
    if config.variant == "none":
        return float(plain + once)
    gate = _gate_cost(config, length) if config.has_gate else 0.0
    return float(plain + once + gate + _block_cost(config, length, inner, dense_experts))


def _gate_cost(config: StratifiedConfig, length: int) -> float:
    width, g, strata = config.hidden_size, config.gate_dim, config.num_strata
    rank, domains = max(config.ranks), len(config.domains)
    token = 2 * g * width + 2 * g * (strata * rank + strata) + 2 * strata * width
    return token + 2 * strata * (width + domains) / length


def _block_cost(config: StratifiedConfig, length: int, inner: int, dense: bool) -> float:
    """Operations that the variant adds over all its blocks. Raises ModelError for one that has no entry."""
    width, strata = config.hidden_size, config.num_strata
    heads = int(config.backbone_config.num_attention_heads)
    changed = len(config.stratified_blocks)
    if config.variant == "attention":
        columns = sum(max(1, rank // 2) for rank in config.ranks)
        # Queries, keys and, for the fused kernels, values are longer by K.
        scores = 2 * heads * strata * (1 + strata) + 2 * 2 * length * heads * strata
        return changed * (scores + 2 * columns * (strata + 2 * width))
    if config.variant == "routing":
        return changed * 2 * 2 * width * sum(max(16, 2 * rank) for rank in config.ranks)
    if config.variant == "layers":
        return changed * (2 * 2 * strata * (2 * width + 1) + 2 * strata)
    if config.variant != "moe":
        raise ModelError(
            f"the cost of variant {config.variant!r} is not written down; add its products to `_block_cost`"
        )
    answering = config.num_experts if dense else ANSWERING
    router = 2 * config.num_experts * (width + strata)
    return len(config.stratified_blocks[1::2]) * ((answering - 1) * 4 * width * inner + router)
