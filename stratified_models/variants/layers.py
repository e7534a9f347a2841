"""`layers`: strata choose depth.

It does not know how strata are found, nor which encoder it sits on. Per block and sub-layer s:

    x ← LN(x + 2σ(p·a_s) f_s(x)) ⊙ (1 + pΓ_s) + pΘ_s      a depth gate, and FiLM (Perez et al. 2017)

and once, over the n hidden states from the gate upwards:

    h_out = h^(L) + Σ_j (pΩ)_j (h^(ℓ_g+j) − h^(L))        affine: the weights sum to 1 for any Ω

Everything starts at zero: the encoder starts as the pretrained one.

B rows, S tokens, D width, K strata, n changed blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.backbone import Family
from stratified_models.config import StratifiedConfig
from stratified_models.hooks import BlockHooks, Strata, Variant

__all__ = ["LayersBlock", "StratifiedLayers"]


class LayersBlock(BlockHooks):
    """Depth gate and FiLM of both sub-layers."""

    def __init__(self, *, width: int, strata: int) -> None:
        super().__init__()
        self.depths = nn.Parameter(torch.empty(2, strata))
        self.gain = nn.Parameter(torch.empty(2, strata, width))
        self.shift = nn.Parameter(torch.empty(2, strata, width))

    def initialise_(self) -> None:
        """Zero everything: 2σ(0) = 1, and FiLM is the identity."""
        for zero in (self.depths, self.gain, self.shift):
            init.zeros_(zero)

    def depth(self, y: Tensor, strata: Strata, sublayer: int) -> Tensor:
        """Scale a sub-layer's output by 2σ(p·a), between 0 and 2."""
        return y * (2 * torch.sigmoid(strata.queries @ self.depths[sublayer]))[..., None].to(y.dtype)

    def film(self, x: Tensor, strata: Strata, sublayer: int) -> Tensor:
        """x ⊙ (1 + pΓ) + pΘ."""
        p = strata.queries.to(x.dtype)
        return torch.addcmul(x + p @ self.shift[sublayer], x, p @ self.gain[sublayer])


class StratifiedLayers(Variant):
    """A `LayersBlock` on every block from the gate upwards, and a mixture of their hidden states."""

    mixes_states: ClassVar[bool] = True

    def __init__(self, config: StratifiedConfig, family: Family) -> None:
        super().__init__(config, family)
        changed = config.stratified_blocks
        for index in changed:
            self.blocks[str(index)] = LayersBlock(width=config.hidden_size, strata=config.num_strata)
        self.mixing = nn.Parameter(torch.empty(config.num_strata, len(changed)))

    def initialise_(self) -> None:
        """Zero the mixture: the last hidden state alone."""
        init.zeros_(self.mixing)

    def mix(self, states: Sequence[Tensor], strata: Strata) -> Tensor:
        """Affine combination of the hidden states, by stratum."""
        last = states[-1]
        weights = (strata.queries @ self.mixing).to(last.dtype)  # (B, S, n)
        mixed = last * (1 - weights.sum(-1, keepdim=True))
        for j, state in enumerate(states[:-1]):
            mixed = mixed + weights[..., j, None] * state[:, : last.shape[1]]
        return mixed
