"""Lines of a file that may be of any size, packed or not, and not be text at all; memory stays bounded.

It knows bytes and UTF-8, and no format.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from serving.files.formats import STDIN
from serving.files.rows import BadInput

LONGEST = 16 * 1024 * 1024  # bytes of a line; a file without line ends must not fill the memory
UTF8_MARK, UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its end, or why there is none; bytes that are not UTF-8 stand as lone surrogates."""

    number: int
    text: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream of bytes, and how far it has been read: `position` of `size` (None: nobody knows)."""

    stream: BinaryIO
    position: Callable[[], int]
    size: int | None
    close: Callable[[], None]


def open_bytes(path: str, *, packed: bool) -> Opened:
    """Open a file, or stdin for "-"; raises `BadInput`."""
    if path == STDIN:
        return Opened(sys.stdin.buffer, lambda: 0, None, lambda: None)
    try:
        raw = Path(path).open("rb")  # noqa: SIM115  closed by whoever reads
        size = Path(path).stat().st_size
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; give a readable file") from None
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
    return Opened(stream, raw.tell, size, raw.close)


def read_lines(stream: BinaryIO, *, longest: int = LONGEST) -> Iterator[Line]:
    """Every line; one that is too long has no text. Raises `BadInput` for UTF-16."""
    number = 0
    while raw := stream.readline(longest + 1):
        number += 1
        if number == 1:
            if raw[:2] in UTF16_MARKS:
                raise BadInput("the file is UTF-16; save it as UTF-8")
            raw = raw.removeprefix(UTF8_MARK)
        if len(raw) > longest and not raw.endswith(b"\n"):
            _skip(stream, longest)
            yield Line(number, "", f"line {number} is longer than {longest} bytes; split it")
            continue
        yield Line(number, raw.decode("utf-8", "surrogateescape"))


def _skip(stream: BinaryIO, step: int) -> None:
    """To the end of the line."""
    while (rest := stream.readline(step)) and not rest.endswith(b"\n"):
        pass
