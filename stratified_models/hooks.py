"""The places where a variant may enter the encoder: hooks of one block, and of the whole stack.

It does not know any variant, any backbone family, nor how strata are found. Every hook of the base classes is
the identity, so a block run with them is the pretrained block.

B rows, T tokens, S query tokens (T, or 1 where only the first position is read), D width, H heads, d head
size, K strata, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from stratified_models.backbone import Family
    from stratified_models.config import StratifiedConfig

__all__ = ["ATTENTION", "FEED_FORWARD", "BlockHooks", "ExpertTrace", "Strata", "Variant"]

ATTENTION, FEED_FORWARD = 0, 1  # the two sub-layers of a block


class Strata(NamedTuple):
    """What a block may know of its tokens' strata; K = 0 where none are looked for.

    Attributes:
        queries: posterior of the tokens that the block computes, (B, S, K).
        keys: posterior of the tokens that they attend to, (B, T, K).
        valid: which of the computed tokens are no padding, (B, S).
    """

    queries: Tensor
    keys: Tensor
    valid: Tensor

    @classmethod
    def nothing(cls, valid: Tensor) -> Strata:
        """No strata: below the gate, and where there is none."""
        empty = torch.zeros((*valid.shape, 0), device=valid.device)
        return cls(empty, empty, valid)

    def first(self) -> Strata:
        """The same row, computing its first position alone."""
        return Strata(self.queries[:, :1], self.keys, self.valid[:, :1])


class ExpertTrace(NamedTuple):
    """What an expert block reports: loads (E,), and sum of router probabilities (E,), both over valid
    tokens."""

    load: Tensor
    probability: Tensor


class BlockHooks(nn.Module):
    """Hooks of one block. Override what the variant changes; each default is the identity."""

    def heads(self, q: Tensor, k: Tensor, v: Tensor, strata: Strata) -> tuple[Tensor, Tensor, Tensor]:
        """Change queries (B, H, S, d), keys and values (B, H, T, d); scores stay scaled by 1/√d of the
        encoder."""
        return q, k, v

    def attended(self, y: Tensor, strata: Strata) -> Tensor:
        """Change the attention's output after its output projection, (B, S, D)."""
        return y

    def feed_forward(
        self, x: Tensor, ffn: Callable[[Tensor], Tensor], strata: Strata
    ) -> tuple[Tensor, ExpertTrace | None]:
        """Compute the feed-forward sub-layer on x (B, S, D); `ffn` is the pretrained one."""
        return ffn(x), None

    def depth(self, y: Tensor, strata: Strata, sublayer: int) -> Tensor:
        """Scale a sub-layer's output (B, S, D) before it joins the residual stream."""
        return y

    def film(self, x: Tensor, strata: Strata, sublayer: int) -> Tensor:
        """Modulate the normalised tokens (B, S, D) of a sub-layer."""
        return x


class Variant(nn.Module):
    """One use of the strata: block hooks by index, and what happens to the stack as a whole.

    Attributes:
        uses_strata: False lets the model go without a gate.
        mixes_states: True keeps the hidden states from the gate upwards for `mix`.
        needs_every_token: True has the last block compute every token when there is a loss, for its
            statistics.
        replaces_ffn: indices of blocks whose feed-forward network the variant brings itself.
    """

    uses_strata: ClassVar[bool] = True
    mixes_states: ClassVar[bool] = False
    needs_every_token: ClassVar[bool] = False

    def __init__(self, config: StratifiedConfig, family: Family) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict()
        self.replaces_ffn: tuple[int, ...] = ()

    def mix(self, states: Sequence[Tensor], strata: Strata) -> Tensor:
        """Combine hidden states, the gate's input first, the last block's output last, into one (B, S, D)."""
        return states[-1]

    def adopt_ffn_(self, index: int, tensors: Sequence[Tensor]) -> None:
        """Take over block `index`'s pretrained feed-forward tensors (up, up bias, down, down bias)."""

    def observe_(self, traces: Sequence[ExpertTrace]) -> None:
        """Add one training forward's expert loads to those counted since the last balancing."""

    def balance_(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Move the expert bias after an optimizer step; `reduce` sums loads over ranks."""

    def backbone_parameters(self) -> set[str]:
        """Names of own parameters that are pretrained weights in another place, so learn at the encoder's
        rate."""
        return set()
