"""The tokenizer of a backbone or a bundle, freed of what its file happens to switch on.

It does not know models; it only compares itself with the encoder's configuration beside it.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stratified_models.errors import BackboneError
from stratified_models.sources import first_line, read_config, resolve_backbone

__all__ = ["load_tokenizer"]


def load_tokenizer(
    source: str | Path, *, revision: str | None = None, max_length: int
) -> PreTrainedTokenizerFast:
    """The tokenizer of a backbone or a bundle: no token types, no padding or truncation left in it.

    Raises:
        BackboneError: not found, no fast tokenizer, no padding token, or ids outside the model's vocabulary.
    """
    folder = resolve_backbone(source)
    config = read_config(folder, revision)
    encoder = getattr(config, "backbone_config", config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, revision=revision, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"no tokenizer in {folder}: {first_line(error)}; put its tokenizer.json there"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BackboneError(f"the tokenizer of {folder} is no fast one; put a tokenizer.json there")
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"the tokenizer of {folder} has no padding token; add one to its tokenizer_config.json"
        )
    if len(tokenizer) > encoder.vocab_size:
        raise BackboneError(
            f"the tokenizer of {folder} has {len(tokenizer)} entries, above the encoder's "
            f"{encoder.vocab_size}; take the tokenizer that belongs to it"
        )
    if encoder.pad_token_id is not None and tokenizer.pad_token_id != encoder.pad_token_id:
        raise BackboneError(
            f"the tokenizer of {folder} pads with id {tokenizer.pad_token_id}, the encoder expects "
            f"{encoder.pad_token_id}; take the tokenizer that belongs to it"
        )
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = max_length
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer
