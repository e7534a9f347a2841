"""BERT's knowledge: where its sub-layers are, and how its classifier pools.

It knows no variant. The norms sit inside the modules of the residual sums (`attention.output`, `output`), so
the sub-layers here are their products alone. Texts are single segments: every position has token type 0.

B rows, T tokens, S query tokens, D width, H heads, d head size, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from stratified_models.backbone import Family, framed_special_ids, scaled_attention
from stratified_models.hooks import BlockHooks, Strata

__all__ = ["Bert", "FirstTokenTanh"]


class FirstTokenTanh(nn.Module):
    """Dropout(tanh(linear(h_[CLS]))), as in `BertForSequenceClassification`; `before` is a dropout on the way
    in, as in `RobertaForSequenceClassification`."""

    def __init__(self, width: int, *, dropout: float, before: float = 0.0) -> None:
        super().__init__()
        self.before = nn.Dropout(before)
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, content: Tensor) -> Tensor:
        """Pool hidden states (B, S, D) to (B, D); `content` (B, T) is not needed."""
        pooled: Tensor = self.dropout(torch.tanh(self.dense(self.before(hidden[:, 0]))))
        return pooled


class Bert(Family):
    """Adapter of `BertModel`: post-norm, classification by the first token."""

    name: ClassVar[str] = "bert"
    reads_first: ClassVar[bool] = True
    optional: ClassVar[tuple[str, ...]] = ("pooler.",)

    def check(self, config: PreTrainedConfig) -> None:
        """No decoder, and no relative positions."""
        if config.is_decoder:
            self.refuse("is_decoder", True, "a classifier attends to both sides")
        positions = getattr(config, "position_embedding_type", "absolute")
        if positions != "absolute":
            self.refuse("position_embedding_type", positions, "only absolute positions are computed")

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """An encoder of random weights, without the pooler: that is a module of the classifier here."""
        return BertModel(cast(BertConfig, config), add_pooling_layer=False)

    def block(self, model: PreTrainedModel, index: int) -> Any:
        """`encoder.layer` number `index`."""
        return cast(BertModel, model).encoder.layer[index]

    def embed(self, model: PreTrainedModel, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Word, position and segment embeddings, normalised."""
        ids = None if inputs_embeds is not None else input_ids
        hidden: Tensor = cast(BertModel, model).embeddings(ids, inputs_embeds=inputs_embeds)
        return hidden

    def attention(
        self, block: Any, x: Tensor, context: Tensor, mask: Tensor, hooks: BlockHooks, strata: Strata
    ) -> Tensor:
        """Self-attention with BERT's projections."""
        own, output = block.attention.self, block.attention.output

        def split(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:-1], own.num_attention_heads, -1).transpose(1, 2)

        q, k, v = split(own.query(x)), split(own.key(context)), split(own.value(context))  # (B, H, ·, d)
        q, k, v = hooks.heads(q, k, v, strata)
        dropout = own.dropout.p if own.training else 0.0
        tokens = scaled_attention(q, k, v, mask, scale=own.scaling, dropout=dropout)
        y: Tensor = output.dropout(hooks.attended(output.dense(tokens), strata))
        return y

    def feed_forward(self, block: Any, x: Tensor) -> Tensor:
        """`intermediate` and the product inside `output`."""
        y: Tensor = block.output.dropout(block.output.dense(block.intermediate(x)))
        return y

    def norms(self, block: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The two norms, each after its residual sum."""
        return block.attention.output.LayerNorm, block.output.LayerNorm

    def pooler(self, config: PreTrainedConfig, pooling: str) -> nn.Module:
        """`FirstTokenTanh`; `adopt_pooler_` fills it where the checkpoint has a pooler."""
        return FirstTokenTanh(config.hidden_size, dropout=_classifier_dropout(config))

    @torch.no_grad()
    def adopt_pooler_(self, pooler: nn.Module, encoder: PreTrainedModel) -> tuple[str, ...]:
        """Copy `pooler.dense`, pretrained on the next-sentence task."""
        source = encoder.pooler
        if not isinstance(source, nn.Module):
            return ()
        dense = cast(FirstTokenTanh, pooler).dense
        dense.load_state_dict(source.get_submodule("dense").state_dict())
        return tuple(f"dense.{name}" for name, _ in dense.named_parameters())

    def ffn_width(self, config: PreTrainedConfig) -> int:
        """`intermediate_size`."""
        return int(config.intermediate_size)

    def ffn_activation(self, config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
        """`hidden_act`."""
        activation: Callable[[Tensor], Tensor] = ACT2FN[config.hidden_act]
        return activation

    def ffn_dropout(self, config: PreTrainedConfig) -> float:
        """`hidden_dropout_prob`."""
        return float(config.hidden_dropout_prob)

    def ffn_tensors(self, model: PreTrainedModel, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of `intermediate.dense` and `output.dense`."""
        block = self.block(model, index)
        up, down = block.intermediate.dense, block.output.dense
        return up.weight, up.bias, down.weight, down.bias

    def remove_ffn_(self, model: PreTrainedModel, index: int) -> None:
        """Put nothing in the place of both products; the norm inside `output` stays."""
        block = self.block(model, index)
        block.intermediate = nn.Identity()
        block.output.dense = nn.Identity()

    def set_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set the dropouts of embeddings and sub-layers, attention, and classifier."""
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        config.classifier_dropout = dropout

    def set_attention_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set `attention_probs_dropout_prob`."""
        config.attention_probs_dropout_prob = dropout

    def max_positions(self, config: PreTrainedConfig) -> int:
        """`max_position_embeddings`."""
        return int(config.max_position_embeddings)

    def special_token_ids(self, tokenizer: Any) -> list[int]:
        """[CLS], [SEP], [PAD], [MASK], and what else the tokenizer calls special."""
        return framed_special_ids(tokenizer)


def _classifier_dropout(config: PreTrainedConfig) -> float:
    own = config.classifier_dropout
    return float(config.hidden_dropout_prob if own is None else own)
