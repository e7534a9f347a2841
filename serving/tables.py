"""Answers as tables for people; it knows rich and the values of `serving.types`, and no wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.client import Answer, Failure
from serving.types import Classification, DomainSource, Item

COLOURS = {"positive": "green", "negative": "red", "neutral": "yellow"}
SOURCES = {
    DomainSource.GIVEN: "given",
    DomainSource.INFERRED: "inferred",
    DomainSource.FALLBACK: "fallback",
}


def answers_table(rows: Iterable[tuple[Item, Answer]]) -> Table:
    """A row a text: label, scores, the domain and how it is known, warnings or the error."""
    table = Table(header_style="bold")
    for name in ("text", "label", "score", "scores", "domain", "strata", "notes"):
        table.add_column(name, justify="right" if name == "score" else "left", overflow="fold")
    for item, answer in rows:
        text = Text(item.text if len(item.text) <= 60 else item.text[:59] + "…")
        if isinstance(answer, Failure):
            table.add_row(
                text, Text(answer.code.name, style="bold red"), "", "", "", "", Text(answer.message)
            )
            continue
        table.add_row(
            text,
            Text(answer.label, style=COLOURS.get(answer.label, "")),
            f"{answer.score:.3f}",
            "  ".join(f"{name} {score:.3f}" for name, score in answer.scores),
            f"{answer.domain} ({SOURCES[answer.domain_source]})",
            strongest(answer.strata),
            " ".join(warning.name for warning in answer.warnings),
        )
    return table


def tokens_table(item: Item, answer: Classification) -> Table:
    """A row a token of one explained answer."""
    title = Text(item.text if len(item.text) <= 60 else item.text[:59] + "…")
    table = Table(title=title, header_style="bold")
    for name in ("token", "span", "saliency", "strata"):
        table.add_column(name)
    most = max(token.saliency for token in answer.tokens)
    for token in answer.tokens:
        bar = "█" * round(10 * token.saliency / most) if most > 0 else ""
        span = f"{token.start}–{token.end}"
        table.add_row(Text(token.text), span, f"{token.saliency:.3f} {bar}", strongest(token.strata))
    return table


def strongest(shares: tuple[float, ...], count: int = 3) -> str:
    """The largest strata with their shares, for example "3: 0.41  0: 0.22  5: 0.10"."""
    order = sorted(range(len(shares)), key=lambda index: -shares[index])[:count]
    return "  ".join(f"{index}: {shares[index]:.2f}" for index in order)


def write(stream: TextIO, table: Table) -> None:
    """Print a table, as wide as the terminal, or 160 columns where there is none."""
    Console(file=stream, width=None if stream.isatty() else 160).print(table)
