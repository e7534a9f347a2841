"""`attention`: strata choose whom a token hears.

It does not know how strata are found, nor which encoder it sits on. Per block:

    score_ij = exp(p_i·τ_h) q_i·k_j/√d + p_iᵀ S_h p_j     a temperature by stratum, an affinity between strata
    y = o + Σ_k p_k B_k A_k o                             a low-rank output subspace of each stratum

The scores come from lengthened heads, q' = [e^{p·τ}q ; √d·p S], k' = [k ; p], so no (T, T) bias is ever made
and fused attention and padding masks stay. τ, S and B start at zero: the block starts as the pretrained one.

B rows, S query tokens, T tokens, D width, H heads, d head size, K strata, ρ_k = r_k/2 columns of stratum k.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.backbone import Family
from stratified_models.config import StratifiedConfig
from stratified_models.hooks import BlockHooks, Strata, Variant

__all__ = ["AttentionBlock", "StratifiedAttention"]


class AttentionBlock(BlockHooks):
    """Lengthened heads, and an output subspace per stratum."""

    column: Tensor

    def __init__(self, *, width: int, heads: int, widths: Sequence[int]) -> None:
        super().__init__()
        strata, self.widths = len(widths), tuple(widths)
        self.temperature = nn.Parameter(torch.empty(strata, heads))
        self.affinity = nn.Parameter(torch.empty(heads, strata, strata))
        self.down = nn.Parameter(torch.empty(sum(widths), width))
        self.up = nn.Parameter(torch.empty(width, sum(widths)))
        self.register_buffer("column", torch.empty(sum(widths), dtype=torch.long), persistent=False)

    def initialise_(self) -> None:
        """Zero what acts on the stream, draw the projection down from N(0, 1/D)."""
        for zero in (self.temperature, self.affinity, self.up):
            init.zeros_(zero)
        init.normal_(self.down, std=self.down.shape[1] ** -0.5)
        init.copy_(
            self.column, torch.tensor([k for k, width in enumerate(self.widths) for _ in range(width)])
        )

    def heads(self, q: Tensor, k: Tensor, v: Tensor, strata: Strata) -> tuple[Tensor, Tensor, Tensor]:
        """Lengthen queries and keys by K entries."""
        query, key = strata.queries.to(q.dtype), strata.keys.to(q.dtype)
        heat = torch.exp(query @ self.temperature.to(q.dtype)).transpose(1, 2)[..., None]  # (B, H, S, 1)
        affine = torch.einsum("bsk,hkl->bhsl", query * q.shape[-1] ** 0.5, self.affinity.to(q.dtype))
        tail = key[:, None].expand(-1, k.shape[1], -1, -1)  # (B, H, T, K)
        return torch.cat([heat * q, affine], dim=-1), torch.cat([k, tail], dim=-1), v

    def attended(self, y: Tensor, strata: Strata) -> Tensor:
        """Add the subspaces' answer, each weighted by its stratum's share."""
        # A product with ones and zeros, not an index: its backward is deterministic on every device.
        spread = (self.column == torch.arange(len(self.widths), device=y.device)[:, None]).to(y.dtype)
        weight = strata.queries.to(y.dtype) @ spread  # (B, S, Σρ)
        return y + nn.functional.linear(weight * nn.functional.linear(y, self.down), self.up)


class StratifiedAttention(Variant):
    """An `AttentionBlock` on every block from the gate upwards."""

    def __init__(self, config: StratifiedConfig, family: Family) -> None:
        super().__init__(config, family)
        widths = [max(1, rank // 2) for rank in config.ranks]
        heads = config.backbone_config.num_attention_heads
        for index in config.stratified_blocks:
            self.blocks[str(index)] = AttentionBlock(width=config.hidden_size, heads=heads, widths=widths)
