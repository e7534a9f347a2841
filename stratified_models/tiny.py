"""What a tiny checkpoint of each family looks like: its tokenizer, and its configuration.

WordPiece over common words for the BERTs, byte-level BPE trained on the same words for RoBERTa and GPT-2; any
text tokenises. It knows no weights, and nothing is read or downloaded. `testing` writes the whole checkpoint.
"""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from stratified_models.errors import BackboneError

__all__ = ["TINY_FAMILIES", "tiny_config", "tiny_tokenizer"]

TINY_FAMILIES: tuple[str, ...] = ("distilbert", "bert", "roberta", "gpt2")
FRAME = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END = "<|endoftext|>"
INPUTS = ["input_ids", "attention_mask"]
SPREAD = 0.2  # of the random weights: wide enough that texts differ
BYTE_PAIRS = 700
WORDS = (
    "the a an and or but not no of to in on at for with from by as is are was were be been it this "
    "that these those i you he she we they me my your his her our their its what who how when where "
    "why which there here so too very just only also more most less than then now never always still "
    "again film movie plot story actor ending scene book product battery price screen phone food "
    "service tweet post article opinion good great best nice fine well love loved like liked enjoy "
    "happy fun funny worth perfect excellent amazing wonderful beautiful bad worst awful terrible "
    "boring bored dull poor waste hate hated sad angry broken wrong slow cheap ugly worse drags okay "
    "average arrived tuesday day today time times two one three year years people man woman thing "
    "things way work works buy would could should will can do does did have has had get got go went "
    "make made see saw watch watched read think "
)
PIECES = ("##s", "##ed", "##ing", "##ly", "##er", "##est", "##y", "##ness", "##ful", "##n't")


def tiny_tokenizer(family: str = "distilbert") -> PreTrainedTokenizerFast:
    """The tokenizer that goes with `family`: what frames a text, and which token pads, is as in the real one.

    Raises:
        BackboneError: there is no such family.
    """
    if family not in TINY_FAMILIES:
        raise BackboneError(f"family {family!r} is unknown; choose one of {', '.join(TINY_FAMILIES)}")
    return {"roberta": _framed_bytes, "gpt2": _plain_bytes}.get(family, _word_pieces)()


def tiny_config(
    family: str, tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int, heads: int, positions: int
) -> PreTrainedConfig:
    """Configuration of an encoder of `family` that reads `tokenizer`'s ids, in texts of up to `positions`
    tokens."""
    names = {
        "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim"),
        "gpt2": ("n_embd", "n_layer", "n_head", "n_inner"),
    }.get(family, ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    sizes = dict(zip(names, (width, layers, heads, 4 * width), strict=True))
    pad = tokenizer.pad_token_id
    config: PreTrainedConfig = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        max_position_embeddings=positions + (pad + 1 if family == "roberta" else 0),
        initializer_range=SPREAD,
        pad_token_id=pad,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    return config


def _word_pieces() -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece over common words, letters, digits and punctuation."""
    marks = list(string.ascii_lowercase + string.digits + string.punctuation)
    entries = [*FRAME, *dict.fromkeys([*WORDS.split(), *marks]), *(f"##{mark}" for mark in marks), *PIECES]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=FRAME[1]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), FRAME, strict=True))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped in transformers
        tokenizer_object=backend, model_input_names=INPUTS, **names
    )


def _byte_pairs(special: list[str]) -> Tokenizer:
    """Byte-level BPE, trained on the words; `special` take the first ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_PAIRS,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f" {WORDS}"], trainer)
    return backend


def _framed_bytes() -> PreTrainedTokenizerFast:
    """RoBERTa's: `<s> text </s>`, padded with id 1."""
    start, pad, end, unknown, mask = special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = _byte_pairs(special)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} {end} $B {end}",
        special_tokens=[(start, 0), (end, 2)],
    )
    names = {"bos_token": start, "cls_token": start, "eos_token": end, "sep_token": end}
    names |= {"pad_token": pad, "unk_token": unknown, "mask_token": mask}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped in transformers
        tokenizer_object=backend, model_input_names=INPUTS, **names
    )


def _plain_bytes() -> PreTrainedTokenizerFast:
    """GPT-2's: no frame, no padding token, one token that ends texts."""
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped in transformers
        tokenizer_object=_byte_pairs([END]), model_input_names=INPUTS, **names
    )
