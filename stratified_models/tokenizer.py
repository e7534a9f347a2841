"""The tokenizer of a backbone or a bundle, freed of what its file happens to switch on.

It does not know models; it only compares itself with the encoder's configuration beside it.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

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
    if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_ids)):
        # Where its file is missing, the library makes one up that knows special tokens alone.
        raise BackboneError(f"the tokenizer of {folder} knows no words; put its tokenizer.json there")
    _settle_padding(tokenizer, encoder, folder)
    _check_fit(tokenizer, encoder, folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = max_length
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # positions count from the first column
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _settle_padding(tokenizer: PreTrainedTokenizerFast, encoder: PreTrainedConfig, folder: str) -> None:
    """Where neither tokenizer nor encoder names a padding token (GPT-2), the end-of-text token pads."""
    if tokenizer.pad_token_id is None and encoder.pad_token_id is None and tokenizer.eos_token_id is not None:
        # Safe, as such an encoder finds its content by the attention mask alone.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise BackboneError(
            f"the tokenizer of {folder} has no padding token; add one to its tokenizer_config.json"
        )


def _check_fit(tokenizer: PreTrainedTokenizerFast, encoder: PreTrainedConfig, folder: str) -> None:
    """Raise BackboneError unless every id has an embedding, and both agree on what special ids mean."""
    cure = "take the tokenizer that belongs to it"
    largest = max(tokenizer.get_vocab().values())
    if largest >= encoder.vocab_size:
        raise BackboneError(
            f"the tokenizer of {folder} has ids up to {largest}, above the encoder's {encoder.vocab_size} "
            f"entries; {cure}"
        )
    expected = encoder.pad_token_id
    if expected is not None and tokenizer.pad_token_id != expected:
        raise BackboneError(
            f"the tokenizer of {folder} pads with id {tokenizer.pad_token_id}, the encoder expects "
            f"{expected}; {cure}"
        )
    for name in ("bos_token_id", "eos_token_id"):
        expected, found = getattr(encoder, name, None), getattr(tokenizer, name)
        if isinstance(expected, int) and found != expected:
            raise BackboneError(
                f"the tokenizer of {folder} has {name} {found}, the encoder expects {expected}; {cure}"
            )
