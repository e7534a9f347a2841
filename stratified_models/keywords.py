"""Keywords that the model is called with and does not read: those that the library's own callers send.

A misspelt `domain_id` must not be one of them: it would be answered as "domain unknown", without a word. It
knows no model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

__all__ = ["UNREAD", "refuse_unknown", "refuse_unknown_words"]

READ = ("input_ids", "attention_mask", "labels", "domain_id", "row_id", "inputs_embeds")
UNREAD: tuple[str, ...] = (
    "num_items_in_batch",  # Trainer, of whatever model
    "return_dict",  # PEFT and older callers, these five
    "output_attentions",
    "output_hidden_states",
    "use_cache",
    "head_mask",
    "token_type_ids",  # tokenizers, on request or by default
    "position_ids",
    "special_tokens_mask",
    "offset_mapping",
    "length",
)


def refuse_unknown(keywords: Iterable[str]) -> None:
    """Let pass what callers of the library are known to send.

    Raises:
        TypeError: one of `keywords` is another.
    """
    for name in keywords:
        if name not in UNREAD:
            raise TypeError(
                f"the model takes no keyword {name!r}; it reads {', '.join(READ)}, and ignores "
                f"{', '.join(UNREAD)}. Domains are given as domain_id= (ids, −1 where unknown), in a "
                "pipeline as domain= (a name)"
            )


def refuse_unknown_words(given: Iterable[str], tokenizer: Callable[..., object]) -> None:
    """Let pass the words, given to a pipeline or beside a text, that `tokenizer` takes.

    Raises:
        TypeError: one of `given` is another.
    """
    known = {*inspect.signature(tokenizer).parameters, "split_special_tokens"}
    for name in given:
        if name not in known:
            raise TypeError(
                f"the pipeline takes no {name!r}, nor does the tokenizer; a domain is given as domain= (a "
                "name), for all texts or beside each text"
            )
