"""`none` with the control `matched`: an adapter without strata, of as many parameters as a variant adds.

Beside each feed-forward network from the gate's block upwards stands one adapter that every token takes,
y = FFN(x) + (16/ρ) B GELU(A x + a), the K = 1 of `routing`. What it gains over `none` is what parameters
alone give. B starts at zero: the block starts as the pretrained one. Adam moves each of the ρ columns about
equally, and a token of `routing` takes 16 of them or a few more: without 16/ρ (LoRA's α/r, Hu et al. 2021,
arXiv:2106.09685, §4.1) the hundreds here would move the block that much faster, and the control would lose by
its learning rate, not by what it lacks.

It does not know the variants: how many parameters to match is handed in. D width, ρ columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.backbone import Family
from stratified_models.config import StratifiedConfig
from stratified_models.hooks import BlockHooks, ExpertTrace, Strata, Variant

__all__ = ["AdapterBlock", "Matched"]

NARROWEST = 16  # columns of the narrowest sub-network of `routing`


class AdapterBlock(BlockHooks):
    """One adapter for all tokens."""

    def __init__(self, *, width: int, columns: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(columns, width))
        self.down_bias = nn.Parameter(torch.empty(columns))
        self.up = nn.Parameter(torch.empty(width, columns))
        self.scale = min(1.0, NARROWEST / columns)

    def initialise_(self) -> None:
        """Zero the projection up, draw the one down from N(0, 1/D)."""
        init.normal_(self.down, std=self.down.shape[1] ** -0.5)
        init.zeros_(self.down_bias)
        init.zeros_(self.up)

    def feed_forward(
        self, x: Tensor, ffn: Callable[[Tensor], Tensor], strata: Strata
    ) -> tuple[Tensor, ExpertTrace | None]:
        """Add the adapter's answer."""
        inner = nn.functional.gelu(nn.functional.linear(x, self.down, self.down_bias))
        return ffn(x) + self.scale * nn.functional.linear(inner, self.up), None


class Matched(Variant):
    """An `AdapterBlock` on every block from the gate upwards, of about `parameters` in all."""

    uses_strata: ClassVar[bool] = False

    def __init__(self, config: StratifiedConfig, family: Family, *, parameters: int) -> None:
        super().__init__(config, family)
        changed, width = config.stratified_blocks, config.hidden_size
        # Columns are spread as evenly as they go; the first blocks take one more.
        columns = max(len(changed), round(parameters / (2 * width + 1)))
        for place, index in enumerate(changed):
            own = columns // len(changed) + (place < columns % len(changed))
            self.blocks[str(index)] = AdapterBlock(width=width, columns=own)
