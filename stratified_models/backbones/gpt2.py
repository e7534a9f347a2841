"""GPT-2's knowledge: a causal decoder read as an encoder of whole texts.

It knows no variant. What is unusual here:
- Norms come before the sub-layers: x ← x + depth(f(film(LN(x)))). The residual stream grows from block to
  block, so the gate reads it normalised, without learned scales; `finish` is the last norm, and what a
  variant mixes is mixed before it.
- Attention is causal. A token's stratum is not: it also depends on the row's mean, so the hidden states of a
  prefix are not those of the longer text, and nothing can be cached.
- Texts have no frame, and the end-of-text token pads: content is what the attention mask says, and padding
  stands on the right, as positions count from the first column.
- Products are `Conv1D`, whose weights are transposed; query, key and value share one.

B rows, T tokens, D width, H heads, d head size, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from stratified_models.backbone import Family, scaled_attention
from stratified_models.hooks import ATTENTION, FEED_FORWARD, BlockHooks, ExpertTrace, Strata
from stratified_models.objective import content_mean

__all__ = ["ContentMean", "Gpt2", "LastToken"]


class ContentMean(nn.Module):
    """Mean of the hidden states over content tokens."""

    def forward(self, hidden: Tensor, content: Tensor) -> Tensor:
        """Pool hidden states (B, T, D) over `content` (B, T) to (B, D); 0 for an empty text."""
        return content_mean(hidden, content).to(hidden.dtype)


class LastToken(nn.Module):
    """Hidden state of the last content token, as in `GPT2ForSequenceClassification`."""

    def forward(self, hidden: Tensor, content: Tensor) -> Tensor:
        """Pool hidden states (B, T, D) at the last of `content` (B, T) to (B, D)."""
        place = torch.arange(content.shape[1], device=content.device)
        last = (place * content).amax(-1, keepdim=True)  # (B, 1)
        return torch.einsum("bt,btd->bd", (place == last).to(hidden.dtype), hidden)


class Gpt2(Family):
    """Adapter of `GPT2Model`: pre-norm, causal, classification by the mean or the last token."""

    name: ClassVar[str] = "gpt2"
    poolings: ClassVar[tuple[str, ...]] = ("mean", "last")
    dense_pooler: ClassVar[bool] = False

    def check(self, config: PreTrainedConfig) -> None:
        """No cross-attention."""
        if config.add_cross_attention:
            self.refuse("add_cross_attention", True, "a classifier has no second text to attend to")

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """An encoder of random weights."""
        return GPT2Model(cast(GPT2Config, config))

    def block(self, model: PreTrainedModel, index: int) -> Any:
        """`h` number `index`."""
        return cast(GPT2Model, model).h[index]

    def embed(self, model: PreTrainedModel, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Word and position embeddings; no norm."""
        own = cast(GPT2Model, model)
        words = own.wte(input_ids) if inputs_embeds is None else inputs_embeds
        hidden: Tensor = own.drop(words + own.wpe(torch.arange(words.shape[1], device=words.device)))
        return hidden

    def mask(self, valid: Tensor) -> Tensor:
        """A token hears itself and the valid ones before it: (B, 1, T, T)."""
        square = torch.ones(valid.shape[1], valid.shape[1], dtype=torch.bool, device=valid.device)
        # Itself also where it is padding: no row of the softmax may be empty, or an empty text becomes NaN.
        return (square.tril() & valid[:, None, None, :]) | torch.eye(
            valid.shape[1], dtype=torch.bool, device=valid.device
        )

    def attention(
        self, block: Any, x: Tensor, context: Tensor, mask: Tensor, hooks: BlockHooks, strata: Strata
    ) -> Tensor:
        """Causal self-attention; queries, keys and values are one product, so x is the context."""
        own = block.attn
        q, k, v = (
            part.view(*part.shape[:-1], own.num_heads, -1).transpose(1, 2)  # (B, H, T, d)
            for part in own.c_attn(context).chunk(3, dim=-1)
        )
        usual: float = own.head_dim**-0.5
        if own.scaling != usual:  # the hooks count on 1/√d
            q = q * (own.scaling / usual)
        q, k, v = hooks.heads(q, k, v, strata)
        dropout = own.attn_dropout.p if own.training else 0.0
        tokens = scaled_attention(q, k, v, mask, scale=usual, dropout=dropout)
        y: Tensor = own.resid_dropout(hooks.attended(own.c_proj(tokens), strata))
        return y

    def feed_forward(self, block: Any, x: Tensor) -> Tensor:
        """The block's own `mlp`."""
        y: Tensor = block.mlp(x)
        return y

    def norms(self, block: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The two norms, each before its sub-layer."""
        return block.ln_1, block.ln_2

    def run_block(
        self, block: Any, hooks: BlockHooks, x: Tensor, mask: Tensor, strata: Strata, first: bool = False
    ) -> tuple[Tensor, ExpertTrace | None]:
        """One pre-norm block, (B, T, D) → (B, T, D); every position is computed, whatever `first` says."""
        norm_attention, norm_ffn = self.norms(block)
        tokens = hooks.film(norm_attention(x), strata, ATTENTION)
        x = x + hooks.depth(self.attention(block, tokens, tokens, mask, hooks, strata), strata, ATTENTION)
        tokens = hooks.film(norm_ffn(x), strata, FEED_FORWARD)
        y, trace = hooks.feed_forward(tokens, partial(self.feed_forward, block), strata)
        return x + hooks.depth(y, strata, FEED_FORWARD), trace

    def finish(self, model: PreTrainedModel, x: Tensor) -> Tensor:
        """`ln_f`."""
        hidden: Tensor = cast(GPT2Model, model).ln_f(x)
        return hidden

    def gate_input(self, x: Tensor) -> Tensor:
        """The stream, normalised without learned scales."""
        return nn.functional.layer_norm(x, x.shape[-1:])

    def pooler(self, config: PreTrainedConfig, pooling: str) -> nn.Module:
        """`ContentMean`, or `LastToken` for "last"; neither has parameters."""
        return LastToken() if pooling == "last" else ContentMean()

    def ffn_width(self, config: PreTrainedConfig) -> int:
        """`n_inner`, or 4 D."""
        return int(config.n_inner or 4 * config.hidden_size)

    def ffn_activation(self, config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
        """`activation_function`."""
        activation: Callable[[Tensor], Tensor] = ACT2FN[config.activation_function]
        return activation

    def ffn_dropout(self, config: PreTrainedConfig) -> float:
        """`resid_pdrop`."""
        return float(config.resid_pdrop)

    def ffn_tensors(self, model: PreTrainedModel, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of `c_fc` and `c_proj`, turned to rows of outputs."""
        up, down = self.block(model, index).mlp.c_fc, self.block(model, index).mlp.c_proj
        return up.weight.T, up.bias, down.weight.T, down.bias

    def remove_ffn_(self, model: PreTrainedModel, index: int) -> None:
        """Put nothing in the place of `mlp`."""
        self.block(model, index).mlp = nn.Identity()

    def set_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set the dropouts of embeddings, attention and residual branches."""
        config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = dropout

    def set_attention_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set `attn_pdrop`."""
        config.attn_pdrop = dropout

    def max_positions(self, config: PreTrainedConfig) -> int:
        """`n_positions`."""
        return int(config.max_position_embeddings)

    def special_token_ids(self, tokenizer: Any) -> list[int]:
        """None: the token that pads also ends texts, so the attention mask alone says what is content."""
        return []
