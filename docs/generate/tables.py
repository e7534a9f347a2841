"""Markdown tables and headings; it knows nothing of what they show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `python -m docs.generate`; change the code instead. -->"


def page(title: str, lead: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join([NOTE, f"# {title}", lead, *(part for part in parts if part)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are escaped where Markdown would read a column's end."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """One line of a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """A value as it is written."""
    shown = str(text)
    return f"`{shown}`" if shown else "–"
