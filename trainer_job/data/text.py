"""Texts: the little cleaning that every row gets, and the key by which two texts count as the same.

It does not know rows, files or labels.
"""

from __future__ import annotations

import html
import re
import unicodedata
from hashlib import blake2b

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SPACE = re.compile(r"[\s\x00]+")
# U+2044 is kept: NFKC reads "9½" as "91⁄2", and without its slash that would be the number 912.
_FOLDED = re.compile(r"[^\w\u2044]+|_+")
_WORD = re.compile(r"[^\W_]+")


def clean(text: str, *, repair_mojibake: bool = False) -> str:
    """The text as the model reads it: `<br />` and runs of white space become one space, ends are trimmed.

    Case, punctuation, emoji, user names and links stay as they are: the service sees them too. Only with
    `repair_mojibake` are wrongly decoded characters mended (`donâ€™t` → `don't`) and HTML entities read
    (`&amp;` → `&`), which needs `ftfy`.
    """
    if repair_mojibake:
        import ftfy

        text = html.unescape(ftfy.fix_text(text))
    if not text.isascii():  # lone surrogates, which JSON escapes can smuggle in, have no UTF-8
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _SPACE.sub(" ", _BREAK.sub(" ", text)).strip()


def fold(text: str) -> str:
    """The text without what does not tell two texts apart: NFKC, case folded, no white space, no punctuation.

    White space goes altogether, since corpora differ in tokenising (`is n't`, `isn't`).
    """
    return _FOLDED.sub("", unicodedata.normalize("NFKC", text).casefold())


def words(text: str) -> list[str]:
    """The folded words in order, for comparing spans; apostrophes split (`isn't` → `isn`, `t`)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def text_key(text: str) -> int:
    """A signed 64-bit key of the folded text, the same on every machine and run.

    A text of punctuation or emoji alone folds to nothing; it is then keyed by itself. At ten million texts
    the chance of any false match is about 3 in a million (birthday bound n² / 2⁶⁵).
    """
    folded = fold(text) or "\x00" + text
    return int.from_bytes(
        blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )
