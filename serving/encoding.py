"""Text in, tokens out: cuts a text to what the model reads, and keeps where each token came from.

It knows the tokenizer and nothing of models, queues or wires. `encode` may be called from several threads.
The library's own `encode` keeps the interpreter's lock until it is done, 4 µs a token; its `encode_batch`
lets go of it, and takes 50 µs longer: long texts, which would hold up every other thread, go as a batch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from tokenizers import Encoding, Tokenizer

from serving.errors import EmptyText, TextTooLong
from serving.types import Encoded, Truncation

LONG = 500  # characters: some 100 tokens


class Encoder(Protocol):
    """Turns one text into tokens."""

    def encode(self, text: str, truncation: Truncation) -> Encoded:
        """Raises `EmptyText` when the model would see nothing of it, `TextTooLong` under REJECT."""
        ...


class TokenizerEncoder:
    """Encodes with a tokenizer of the `tokenizers` library, up to `max_tokens`, special tokens included."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, special_ids: Collection[int]) -> None:
        """`tokenizer` is taken over: its own truncation and padding are switched off."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._special = tokenizer, frozenset(special_ids)
        self._max_tokens = max_tokens
        self._room = max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)

    def encode(self, text: str, truncation: Truncation) -> Encoded:
        """See `Encoder`; HEAD_TAIL gives the odd token to the head."""
        if len(text) < LONG:
            raw = self._tokenizer.encode(text, add_special_tokens=False)
        else:
            [raw] = self._tokenizer.encode_batch([text], add_special_tokens=False)
        full = len(raw) + self._max_tokens - self._room
        if not len(raw):
            raise EmptyText(
                "the text holds nothing that the model can read; send at least one word", field="text"
            )
        if len(raw) > self._room:
            raw = self._cut(raw, truncation, full)
        whole = self._tokenizer.post_process(raw, None, add_special_tokens=True)
        content = tuple(token not in self._special for token in whole.ids)
        return Encoded(tuple(whole.ids), tuple(whole.tokens), tuple(whole.offsets), content, full)

    def _cut(self, raw: Encoding, truncation: Truncation, full: int) -> Encoding:
        if truncation is Truncation.REJECT:
            raise TextTooLong(
                f"the text has {full} tokens, above this model's {self._max_tokens}; shorten it, or allow "
                "HEAD, TAIL or HEAD_TAIL truncation",
                field="text",
            )
        if truncation is not Truncation.HEAD_TAIL:
            raw.truncate(self._room, direction="left" if truncation is Truncation.TAIL else "right")
            return raw
        head, tail = raw, self._copy(raw)
        head.truncate(self._room - self._room // 2, direction="right")
        tail.truncate(self._room // 2, direction="left")
        return Encoding.merge([head, tail], growing_offsets=False)

    @staticmethod
    def _copy(raw: Encoding) -> Encoding:
        return Encoding.merge([raw], growing_offsets=False)
