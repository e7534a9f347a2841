"""A pretrained encoder with its sub-layers within reach, and the walk through one block.

`Family` is the seam: an adapter per family of encoders (see `backbones/`) says where the projections, norms
and feed-forward networks are. The walk puts the hooks of a variant between them; it knows no variant, and a
variant knows no family. Adapters hold no tensors.

B rows, T tokens, S query tokens (T, or 1 where only the first position is read), D width, H heads, d head
size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stratified_models.errors import BackboneError
from stratified_models.hooks import ATTENTION, FEED_FORWARD, BlockHooks, ExpertTrace, Strata

__all__ = ["Family", "framed_special_ids", "scaled_attention"]


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


def framed_special_ids(tokenizer: Any) -> list[int]:
    """Ids that are never content, of a tokenizer that frames every text: all special ones but the unknown
    word.

    Raises:
        BackboneError: texts do not begin with a special token, though pooling reads the first position.
    """
    # An unknown word is still a word: [UNK] and <unk> stay content.
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
    ids = list(tokenizer("")["input_ids"])
    if not ids or ids[0] not in special:
        raise BackboneError(
            f"the tokenizer turns an empty text into {ids}, but this encoder is read at a special token in "
            "first place; take the tokenizer that belongs to it"
        )
    return special


class Family(ABC):
    """Adapter of one family of encoders.

    Attributes:
        name: the `model_type` of its configurations.
        reads_first: whether pooling reads the first position alone, so the last block may skip the others.
        poolings: ways of pooling by name, the family's own first.
        dense_pooler: whether its pooler has a D×D product.
        load_options: arguments with which its checkpoints are read.
        optional: beginnings of parameter names that a checkpoint may lack.
    """

    name: ClassVar[str]
    reads_first: ClassVar[bool] = False
    poolings: ClassVar[tuple[str, ...]] = ("first",)
    dense_pooler: ClassVar[bool] = True
    load_options: ClassVar[Mapping[str, Any]] = {}
    optional: ClassVar[tuple[str, ...]] = ()

    def check(self, config: PreTrainedConfig) -> None:  # noqa: B027  # most families have nothing to refuse
        """Refuse settings that the adapter does not compute.

        Raises:
            BackboneError: one of them is set.
        """

    def refuse(self, setting: str, value: object, rule: str) -> NoReturn:
        """Raise the BackboneError that says which setting of a checkpoint does not fit, and why."""
        raise BackboneError(
            f"this {self.name} checkpoint has {setting}={value!r}, but {rule}; choose another backbone"
        )

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

    def gate_input(self, x: Tensor) -> Tensor:
        """What gate and domain head read of a block's input (B, T, D): the stream, or the stream
        normalised."""
        return x

    def pooling(self, name: str | None) -> str:
        """The way of pooling that `name` means; None is the family's own.

        Raises:
            BackboneError: the family has no such pooling.
        """
        if name is not None and name not in self.poolings:
            raise BackboneError(
                f"pooling {name!r} is not known to {self.name}; choose one of {', '.join(self.poolings)}"
            )
        return name or self.poolings[0]

    @abstractmethod
    def pooler(self, config: PreTrainedConfig, pooling: str) -> nn.Module:
        """Module that takes hidden states (B, S, D) and content (B, T) to pooled rows (B, D)."""

    def adopt_pooler_(self, pooler: nn.Module, encoder: PreTrainedModel) -> tuple[str, ...]:
        """Copy the pretrained pooler, where the checkpoint has one; returns the names of its parameters."""
        return ()

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
    def set_attention_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set the dropout of attention weights alone."""

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
