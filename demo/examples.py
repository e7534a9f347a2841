"""Texts to begin with, for each domain of the quickstart; written for this page, out of no data set.

They are what the page offers to click on, and what it asks the service about to learn which words each
stratum holds. A domain that is not among them has no examples until a file brings some. It knows no service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from demo.sheet import BadFile, inspect, rows

__all__ = ["EXAMPLES", "KEPT", "choose", "read_examples"]

KEPT = 40
"""Texts of one file that are kept for each domain."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "imdb": (
        "I went in expecting very little and stayed for the whole of it. The first half hour is slow, and "
        "the dialogue could have been cut by a third, but the two leads carry every scene they share and "
        "the last act is as good as anything I have seen this year. See it with somebody you like arguing "
        "with, and leave the trailer alone: it gives the best joke away.",
        "Two hours of my life that I will not get back. The plot makes no sense, the camera never stands "
        "still, and whoever wrote the jokes should be kept away from paper. My wife fell asleep and I "
        "envied her.",
        "The book was better, as always, but the film is not the disaster that the critics made of it.",
        "A film about a lighthouse keeper and his daughter, shot in black and white over three winters.",
        "Great music, wonderful costumes, and a story so thin that you can see the set through it.",
    ),
    "rotten_tomatoes": (
        "a warm, sly comedy that trusts its actors and is repaid by every one of them .",
        "the plot drags , but the ending is worth it .",
        "loud , long and entirely without a pulse .",
        "it never quite decides whether to frighten us or to make us laugh , and manages neither .",
        "a small miracle of timing , and the best performance of her career .",
    ),
    "tweets": (
        "just landed, luggage made it too!! best airline ever :)",
        "3 hours on hold and then they hang up. never again @anybank",
        "new episode drops tomorrow at 8",
        "omg this song is stuck in my head and i don't even mind",
        "rain again. bus late again. monday, you did it again",
    ),
    "amazon": (
        "The battery lasts two full days and the screen is sharp, but the charger broke after a week.",
        "Works exactly as described. I bought a second one for my mother.",
        "The lens cap is too loose and falls off whenever I put the camera in my bag.",
        "It has four buttons on the left side and one on the right.",
        "Cheap plastic, poor sound, and the support line never answered.",
    ),
    "editorials": (
        "The committee will meet again in March to consider the two remaining proposals.",
        "It is a disgrace that a city of this wealth cannot keep its own schools warm.",
        "The senator deserves credit for saying plainly what her colleagues only whisper.",
        "Congress should reject the bill, which rewards the banks that caused the harm.",
        "The new treaty is a real, if modest, step towards a safer region.",
    ),
}


def read_examples(path: Path) -> dict[str, tuple[str, ...]]:
    """Texts of a CSV file with the columns `text` and `domain`, at most `KEPT` a domain.

    Raises `BadFile` for a file that cannot be read, or has no such columns.
    """
    sheet = inspect(path)
    missing = [name for name in ("text", "domain") if name not in sheet.header]
    if missing:
        raise BadFile(
            f"{path.name} has no column {' and no column '.join(missing)}; name the columns text and domain"
        )
    text, domain = sheet.header.index("text"), sheet.header.index("domain")
    found: dict[str, list[str]] = {}
    for row in rows(sheet):
        kept = found.setdefault(row[domain], [])
        if row[text].strip() and len(kept) < KEPT:
            kept.append(row[text])
    return {name: tuple(texts) for name, texts in found.items() if name and texts}


def choose(
    known: Mapping[str, Sequence[str]], domains: Iterable[str], *, each: int = 2
) -> list[tuple[str, str]]:
    """Domain and text of the first `each` examples of every domain that the model knows; all, if it knows
    none of them."""
    wanted = [name for name in domains if name in known] or list(known)
    return [(name, text) for name in wanted for text in known[name][:each]]
