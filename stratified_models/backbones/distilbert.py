"""DistilBERT's knowledge: where its sub-layers are, and how a BERT checkpoint becomes one.

It knows no variant. DistilBERT (Sanh et al. 2019) is BERT without token types and pooler: a checkpoint of
BERT whose texts are single segments is the same function once the embedding of segment 0 is added to every
position.

B rows, T tokens, S query tokens, D width, H heads, d head size, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import get_activation

from stratified_models.backbone import Family, framed_special_ids, scaled_attention
from stratified_models.errors import BackboneError
from stratified_models.hooks import BlockHooks, Strata

__all__ = ["DistilBert", "FirstTokenPooler", "bert_to_distilbert"]

EPSILON = 1e-12  # DistilBERT's norms have it hard-coded


class FirstTokenPooler(nn.Module):
    """Dropout(ReLU(linear(h_[CLS]))), as in `DistilBertForSequenceClassification`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.pre_classifier = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, content: Tensor) -> Tensor:
        """Pool hidden states (B, S, D) to (B, D); `content` (B, T) is not needed."""
        pooled: Tensor = self.dropout(nn.functional.relu(self.pre_classifier(hidden[:, 0])))
        return pooled


class DistilBert(Family):
    """Adapter of `DistilBertModel`: post-norm, classification by the first token."""

    name = "distilbert"
    reads_first = True

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """An encoder of random weights."""
        return DistilBertModel(cast(DistilBertConfig, config))

    def block(self, model: PreTrainedModel, index: int) -> Any:
        """`TransformerBlock` number `index`."""
        return cast(DistilBertModel, model).transformer.layer[index]

    def embed(self, model: PreTrainedModel, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Word and position embeddings, normalised."""
        hidden: Tensor = cast(DistilBertModel, model).embeddings(
            None if inputs_embeds is not None else input_ids, inputs_embeds
        )
        return hidden

    def attention(
        self, block: Any, x: Tensor, context: Tensor, mask: Tensor, hooks: BlockHooks, strata: Strata
    ) -> Tensor:
        """Self-attention with DistilBERT's projections."""
        own = block.attention

        def split(tokens: Tensor) -> Tensor:
            return tokens.view(*tokens.shape[:-1], own.n_heads, -1).transpose(1, 2)

        q, k, v = split(own.q_lin(x)), split(own.k_lin(context)), split(own.v_lin(context))  # (B, H, ·, d)
        q, k, v = hooks.heads(q, k, v, strata)
        dropout = own.dropout.p if own.training else 0.0
        tokens = scaled_attention(q, k, v, mask, scale=own.scaling, dropout=dropout)
        return hooks.attended(own.out_lin(tokens), strata)

    def feed_forward(self, block: Any, x: Tensor) -> Tensor:
        """The block's own `FFN`."""
        y: Tensor = block.ffn(x)
        return y

    def norms(self, block: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The two norms, each after its residual sum."""
        return block.sa_layer_norm, block.output_layer_norm

    def pooler(self, config: PreTrainedConfig, pooling: str) -> nn.Module:
        """`FirstTokenPooler`, new: it is not part of the pretrained encoder."""
        return FirstTokenPooler(config.hidden_size, config.seq_classif_dropout)

    def ffn_width(self, config: PreTrainedConfig) -> int:
        """`hidden_dim`."""
        return int(config.hidden_dim)

    def ffn_activation(self, config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
        """`activation`."""
        activation: Callable[[Tensor], Tensor] = get_activation(  # type: ignore[no-untyped-call]  # untyped in transformers
            config.activation
        )
        return activation

    def ffn_dropout(self, config: PreTrainedConfig) -> float:
        """`dropout`."""
        return float(config.dropout)

    def ffn_tensors(self, model: PreTrainedModel, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of `lin1` and `lin2`."""
        ffn = self.block(model, index).ffn
        return ffn.lin1.weight, ffn.lin1.bias, ffn.lin2.weight, ffn.lin2.bias

    def remove_ffn_(self, model: PreTrainedModel, index: int) -> None:
        """Put nothing in the place of `ffn`."""
        self.block(model, index).ffn = nn.Identity()

    def set_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set the dropouts of embeddings, attention, feed-forward and pooler."""
        config.dropout = config.attention_dropout = config.seq_classif_dropout = dropout

    def set_attention_dropout_(self, config: PreTrainedConfig, dropout: float) -> None:
        """Set `attention_dropout`."""
        config.attention_dropout = dropout

    def max_positions(self, config: PreTrainedConfig) -> int:
        """`max_position_embeddings`."""
        return int(config.max_position_embeddings)

    def special_token_ids(self, tokenizer: Any) -> list[int]:
        """[CLS], [SEP], [PAD], [MASK], and what else the tokenizer calls special."""
        return framed_special_ids(tokenizer)


def _refuse(setting: str, value: object, rule: str) -> None:
    raise BackboneError(f"this BERT checkpoint has {setting}={value!r}, but {rule}; choose another backbone")


def bert_to_distilbert(model: PreTrainedModel) -> tuple[DistilBertConfig, dict[str, Tensor]]:
    """Convert `BertModel` to DistilBERT's configuration and tensors: the same function on single segments.

    Raises:
        BackboneError: something in the checkpoint has no counterpart in DistilBERT.
    """
    config = model.config
    if config.layer_norm_eps != EPSILON:
        _refuse("layer_norm_eps", config.layer_norm_eps, f"DistilBERT's norms have {EPSILON}")
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        _refuse(
            "position_embedding_type", config.position_embedding_type, "DistilBERT's positions are absolute"
        )
    if config.is_decoder:
        _refuse("is_decoder", True, "DistilBERT attends to both sides")
    target = DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        activation=config.hidden_act,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
    )
    source = model.state_dict()
    tensors = {
        "embeddings.word_embeddings.weight": source["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": source["embeddings.position_embeddings.weight"]
        + source["embeddings.token_type_embeddings.weight"][0],
    }
    for part in ("weight", "bias"):
        tensors[f"embeddings.LayerNorm.{part}"] = source[f"embeddings.LayerNorm.{part}"]
        for index in range(config.num_hidden_layers):
            for there, here in _BLOCK_NAMES.items():
                name = f"transformer.layer.{index}.{here}.{part}"
                tensors[name] = source[f"encoder.layer.{index}.{there}.{part}"]
    return target, tensors


_BLOCK_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
