"""Writes `shoes.csv`: made-up reviews of shoes with 1 to 5 stars, for the tutorial's sixth domain.

    python examples/make_shoes.py [FILE] [ROWS]

The sentences are put together at random, by a fixed seed; they are nobody's reviews.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

PARTS = ("sole", "heel", "laces", "lining", "toe box", "stitching", "tongue", "leather")
USES = ("on my way to work", "in the rain", "on a long hike", "at the gym", "for a wedding", "every day")
SAID = {
    1: (
        "The {part} came apart {use}.",
        "Blisters after an hour {use}; the {part} is awful.",
        "Worst shoes ever.",
    ),
    2: ("The {part} is too stiff {use}.", "Disappointing: the {part} looks worn after a week."),
    3: ("They are shoes; the {part} is plain.", "I wear them {use}. The {part} is brown."),
    4: ("Good shoes, only the {part} could be softer {use}.", "The {part} holds up well {use}."),
    5: ("Perfect {use}, and the {part} is beautiful.", "I love them; the {part} is still like new {use}."),
}


def main(file: Path, rows: int) -> None:
    """Write the file."""
    draw = random.Random(13)  # noqa: S311 - sentences, not secrets
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "stars", "domain"])
        for number in range(rows):
            stars = 1 + number % 5
            first, second = (draw.choice(SAID[stars]) for _ in range(2))
            filled = [s.format(part=draw.choice(PARTS), use=draw.choice(USES)) for s in (first, second)]
            writer.writerow(
                [f"Size {draw.randint(35, 47)}, pair {number}. {' '.join(filled)}", stars, "shoes"]
            )


if __name__ == "__main__":
    words = sys.argv[1:]
    main(Path(words[0] if words else "shoes.csv"), int(words[1]) if len(words) > 1 else 300)
