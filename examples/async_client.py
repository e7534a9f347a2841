"""Many calls at once on one event loop: python examples/async_client.py [HOST:PORT]"""

from __future__ import annotations

import asyncio
import sys

from serving.client import AsyncClient

TEXTS = ["Worth every minute.", "Never again.", "It arrived on Tuesday.", "Best purchase of the year!"]


async def ask(target: str) -> list[str]:
    """A line for each text; one connection carries all calls."""
    async with AsyncClient(target, deadline=5) as client:
        answers = await asyncio.gather(*(client.classify(text) for text in TEXTS))
    return [f"{a.label:>8} {a.score:.2f}  {text}" for a, text in zip(answers, TEXTS, strict=True)]


def main(target: str = "127.0.0.1:50051") -> None:
    """Ask, and print what comes back."""
    print("\n".join(asyncio.run(ask(target))))


if __name__ == "__main__":
    main(*sys.argv[1:])
