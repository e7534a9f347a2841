"""Any number of texts through one stream, in flat memory: python examples/stream.py [HOST:PORT] < texts

One text a line on stdin; a line of JSON for each on stdout, as it is ready. The server reads no faster than
it answers, so the file may be larger than the memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from serving.client import Client, Failure
from serving.types import Item, StreamOrder


def items(lines: Iterable[str]) -> Iterator[Item]:
    """The lines that hold something, under their numbers."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield Item(line.rstrip("\n"), id=str(number))


def main(target: str = "127.0.0.1:50051", *, source: TextIO = sys.stdin) -> None:
    """Read, ask, print."""
    with Client(target) as client:
        for line, answer in client.classify_stream(items(source), order=StreamOrder.AS_COMPLETED):
            told = {"error": answer.reason} if isinstance(answer, Failure) else {"label": answer.label}
            print(json.dumps({"line": int(line), **told}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
