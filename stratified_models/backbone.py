"""A pretrained encoder with its sub-layers within reach, and the walk through one block.

`Family` is the seam: an adapter per family of encoders (see `backbones/`) says where the projections, norms
and feed-forward networks are. The walk puts the hooks of a variant between them; it knows no variant, and a
variant knows no family. Adapters hold no tensors.

B rows, T tokens, S query tokens (T, or 1 where only the first position is read), D width, H heads, d head
size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stratified_models.hooks import ATTENTION, FEED_FORWARD, BlockHooks, ExpertTrace, Strata

__all__ = ["Family", "scaled_attention"]


def scaled_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, dropout: float
) -> Tensor:
    """softmax(scale·qkᵀ)v for q (B, H, S, e), k (B, H, T, e), v (B, H, T, d), as tokens (B, S, H·d).

    `mask` is boolean and broadcasts to (B, H, S, T); True attends. Where a variant has lengthened q and k
    (e > d), v is padded with zeros and the output cut: fused kernels want equal head sizes.
    """
    size, extra = v.shape[-1], q.shape[-1] - v.shape[-1]
    if extra:
        v = F.pad(v, (0, extra))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return out[..., :size].transpose(1, 2).flatten(2)


class Family(ABC):
    """Adapter of one family of encoders.

    Attributes:
        name: the `model_type` of its configurations.
        reads_first: whether pooling reads the first position alone, so the last block may skip the others.
    """

    name: ClassVar[str]
    reads_first: ClassVar[bool] = False

    @abstractmethod
    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """The encoder without a head, randomly initialised."""

    @abstractmethod
    def block(self, model: PreTrainedModel, index: int) -> Any:
        """Block `index`, counted from 0."""

    @abstractmethod
    def embed(self, model: PreTrainedModel, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """h^(0), (B, T, D), of token ids or of word embeddings."""

    def mask(self, valid: Tensor) -> Tensor:
        """Who may be attended to, of `valid` (B, T): boolean, broadcasting to (B, H, T, T)."""
        return valid[:, None, None, :]

    @abstractmethod
    def attention(
        self, block: Any, x: Tensor, context: Tensor, mask: Tensor, hooks: BlockHooks, strata: Strata
    ) -> Tensor:
        """Attention of x (B, S, D) over context (B, T, D), with `hooks.heads` before and `hooks.attended`
        after."""

    @abstractmethod
    def feed_forward(self, block: Any, x: Tensor) -> Tensor:
        """The pretrained feed-forward sub-layer on (B, S, D), dropout included."""

    @abstractmethod
    def norms(self, block: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The norms of the attention and the feed-forward sub-layer."""

    def finish(self, model: PreTrainedModel, x: Tensor) -> Tensor:
        """What follows the last block: nothing, or a final norm."""
        return x

    @abstractmethod
    def pooler(self, config: PreTrainedConfig) -> nn.Module:
        """Module that takes hidden states (B, S, D) and content (B, T) to pooled rows (B, D)."""

    @abstractmethod
    def ffn_width(self, config: PreTrainedConfig) -> int:
        """Inner width of the feed-forward network."""

    @abstractmethod
    def ffn_activation(self, config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
        """Its activation function."""

    @abstractmethod
    def ffn_dropout(self, config: PreTrainedConfig) -> float:
        """Dropout after it."""

    @abstractmethod
    def ffn_tensors(self, model: PreTrainedModel, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Its tensors in block `index`: up (F, D), up bias (F,), down (D, F), down bias (D,)."""

    @abstractmethod
    def remove_ffn_(self, model: PreTrainedModel, index: int) -> None:
        """Drop block `index`'s feed-forward tensors: a variant brings its own."""

    @abstractmethod
    def set_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set every dropout of the encoder and its pooler."""

    @abstractmethod
    def max_positions(self, config: PreTrainedConfig) -> int:
        """Longest text in tokens that the positions allow."""

    @abstractmethod
    def special_token_ids(self, tokenizer: Any) -> list[int]:
        """Ids that are never content."""

    def run_block(
        self, block: Any, hooks: BlockHooks, x: Tensor, mask: Tensor, strata: Strata, first: bool = False
    ) -> tuple[Tensor, ExpertTrace | None]:
        """One post-norm block: (B, T, D) → (B, S, D), and what its experts did.

        A family with norms before the sub-layers overrides this walk; the hooks keep their meaning.

        `first` computes the first position alone, from the context of all: S = 1.
        """
        norm_attention, norm_ffn = self.norms(block)
        tokens = x[:, :1] if first else x
        strata = strata.first() if first else strata
        y = self.attention(block, tokens, x, mask, hooks, strata)
        tokens = norm_attention(tokens + hooks.depth(y, strata, ATTENTION))
        tokens = hooks.film(tokens, strata, ATTENTION)
        y, trace = hooks.feed_forward(tokens, partial(self.feed_forward, block), strata)
        tokens = norm_ffn(tokens + hooks.depth(y, strata, FEED_FORWARD))
        return hooks.film(tokens, strata, FEED_FORWARD), trace
