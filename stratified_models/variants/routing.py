"""`routing`: strata choose sub-networks.

It does not know how strata are found, nor which encoder it sits on. Beside each feed-forward network stand
adapters of a different width per stratum, of which a token takes the one of its likeliest stratum:

    k* = argmax p;    y = FFN(x) + p_{k*} · B_{k*} GELU(A_{k*} x + a_{k*})

p_{k*} carries the gradient to the gate (as in Switch, Fedus et al. 2021). All columns are computed and
masked: no gather, static shapes, every parameter in every graph. B starts at zero: the block starts as the
pretrained one.

B rows, S tokens, D width, K strata, ρ_k = max(16, 2r_k) columns of stratum k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.backbone import Family
from stratified_models.config import StratifiedConfig
from stratified_models.hooks import BlockHooks, ExpertTrace, Strata, Variant

__all__ = ["RoutingBlock", "StratifiedRouting"]


class RoutingBlock(BlockHooks):
    """One adapter per stratum, hard top-1."""

    column: Tensor

    def __init__(self, *, width: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.down = nn.Parameter(torch.empty(sum(widths), width))
        self.down_bias = nn.Parameter(torch.empty(sum(widths)))
        self.up = nn.Parameter(torch.empty(width, sum(widths)))
        self.register_buffer("column", torch.empty(sum(widths), dtype=torch.long), persistent=False)

    def initialise_(self) -> None:
        """Zero the projection up, draw the one down from N(0, 1/D)."""
        init.normal_(self.down, std=self.down.shape[1] ** -0.5)
        init.zeros_(self.down_bias)
        init.zeros_(self.up)
        init.copy_(
            self.column, torch.tensor([k for k, width in enumerate(self.widths) for _ in range(width)])
        )

    def feed_forward(
        self, x: Tensor, ffn: Callable[[Tensor], Tensor], strata: Strata
    ) -> tuple[Tensor, ExpertTrace | None]:
        """Add the answer of the likeliest stratum's adapter."""
        share, likeliest = strata.queries.max(dim=-1, keepdim=True)  # (B, S, 1)
        gate = torch.where(self.column == likeliest, share, torch.zeros_like(share))  # (B, S, Σρ)
        inner = nn.functional.gelu(nn.functional.linear(x, self.down, self.down_bias))
        return ffn(x) + nn.functional.linear(gate.to(inner.dtype) * inner, self.up), None


class StratifiedRouting(Variant):
    """A `RoutingBlock` on every block from the gate upwards."""

    def __init__(self, config: StratifiedConfig, family: Family) -> None:
        super().__init__(config, family)
        widths = [max(16, 2 * rank) for rank in config.ranks]
        for index in config.stratified_blocks:
            self.blocks[str(index)] = RoutingBlock(width=config.hidden_size, widths=widths)
