"""RoBERTa's knowledge: BERT's blocks under another embedding, head and tokenizer.

It knows no variant. What differs from BERT: positions count from the padding id + 1, over tokens that are not
the padding id, so padding must carry that id and two positions are lost; checkpoints have no pooler, and the
classification head has a dropout on both sides of its product.

B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, RobertaConfig, RobertaModel

from stratified_models.backbones.bert import Bert, FirstTokenTanh

__all__ = ["Roberta"]


class Roberta(Bert):
    """Adapter of `RobertaModel`: post-norm, classification by `<s>`."""

    name: ClassVar[str] = "roberta"
    load_options: ClassVar[Mapping[str, Any]] = {"add_pooling_layer": False}
    optional: ClassVar[tuple[str, ...]] = ()

    def check(self, config: PreTrainedConfig) -> None:
        """As BERT; and a padding id, from which positions count."""
        super().check(config)
        if config.pad_token_id is None:
            self.refuse("pad_token_id", None, "its positions count from the padding id")

    def build(self, config: PreTrainedConfig) -> PreTrainedModel:
        """An encoder of random weights."""
        return RobertaModel(cast(RobertaConfig, config), add_pooling_layer=False)

    def pooler(self, config: PreTrainedConfig, pooling: str) -> nn.Module:
        """`FirstTokenTanh` with both dropouts, new: it is not part of the pretrained encoder."""
        own = config.classifier_dropout
        dropout = float(config.hidden_dropout_prob if own is None else own)
        return FirstTokenTanh(config.hidden_size, dropout=dropout, before=dropout)

    def adopt_pooler_(self, pooler: nn.Module, encoder: PreTrainedModel) -> tuple[str, ...]:
        """Nothing: checkpoints have none."""
        return ()

    def max_positions(self, config: PreTrainedConfig) -> int:
        """`max_position_embeddings`, less those up to the padding id."""
        return int(config.max_position_embeddings) - int(config.pad_token_id) - 1

    def embed(self, model: PreTrainedModel, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """Word and position embeddings, normalised; positions come from which ids are not the padding id."""
        ids = None if inputs_embeds is not None else input_ids
        hidden: Tensor = cast(RobertaModel, model).embeddings(ids, inputs_embeds=inputs_embeds)
        return hidden
