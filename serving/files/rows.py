"""A row of a file as something to classify, and which of its columns say what; it knows no file format.

A row that cannot be classified is still a row: it carries its problem, and gets its place in the output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.types import Item

TEXT, DOMAIN, ID = "text", "domain", "id"  # the names that are looked for when nobody names others


class BadInput(Exception):  # noqa: N818  a meaning, as in serving.errors
    """The input cannot be read, or the output not be written: one line for the user."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number in the file (from 1), what to classify, the columns to keep, or what is wrong."""

    number: int
    item: Item
    kept: tuple[str | None, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read. `None` for `domain` and `id`: the column of that name, where there is one.

    `fixed_domain` holds for every row, and then no column is asked. `keep` goes to the output unchanged.
    """

    text: str = TEXT
    domain: str | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()
    fixed_domain: str = ""

    def among(self, names: Sequence[str], *, where: str) -> Columns:
        """These columns in a table that has `names`; raises `BadInput` for one that it does not have."""
        asked = [("--text-column", self.text), ("--domain-column", self.domain), ("--id-column", self.id)]
        for flag, name in [*asked, *(("--keep", name) for name in self.keep)]:
            if name and name not in names:
                raise BadInput(f"{where} has no column {name!r}; set {flag} to one of: {', '.join(names)}")
        return replace(
            self,
            domain=self._found(self.domain, DOMAIN, names) if not self.fixed_domain else "",
            id=self._found(self.id, ID, names),
        )

    @staticmethod
    def _found(asked: str | None, usual: str, names: Sequence[str]) -> str:
        if asked is None:
            return usual if usual in names else ""
        return asked

    @property
    def read(self) -> list[str]:
        """The columns that a reader must bring, each once."""
        return list(dict.fromkeys(name for name in (self.text, self.domain, self.id, *self.keep) if name))

    def row(self, number: int, record: Mapping[str, Any]) -> Row:
        """The row of a record; one without a text carries that as its problem."""
        text = record.get(self.text)
        domain = self.fixed_domain or _plain(record.get(self.domain or "")) or ""
        identity = _plain(record.get(self.id or "")) or str(number)
        kept = tuple(_plain(record.get(name)) for name in self.keep)
        written = text if isinstance(text, str) else ""
        problem = "" if isinstance(text, str) else _why(number, self.text, text)
        if not problem and not (written.isascii() or _encodes(written)):
            problem = f"row {number} is not UTF-8; save the file as UTF-8"
        if problem:
            return Row(number, Item("", "", _safe(identity)), tuple(map(_safe, kept)), problem)
        return Row(number, Item(written, _safe(domain), _safe(identity)), tuple(map(_safe, kept)))


def broken(number: int, problem: str, *, keep: int = 0) -> Row:
    """A row of which nothing could be read."""
    return Row(number, Item("", "", str(number)), (None,) * keep, problem)


def _why(number: int, column: str, value: object) -> str:
    if value is None:
        return f"row {number} has no {column!r}; give it a text"
    return f"row {number} has {type(value).__name__} in {column!r}; give it a text"


def _plain(value: object) -> str | None:
    """As text; what is no scalar as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _safe(text: Any) -> Any:
    """Without the halves of characters that bytes which are not UTF-8 leave behind."""
    if isinstance(text, str) and not text.isascii():
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text
