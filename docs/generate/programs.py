"""The parser that a program really uses, caught in the moment in which it parses; nothing else is run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Main = Callable[[Sequence[str]], int]


class Parsed(BaseException):
    """Carries the parser and what it read out of the program; no program catches it."""

    def __init__(self, parser: argparse.ArgumentParser, values: argparse.Namespace | None) -> None:
        super().__init__(parser.prog)
        self.parser, self.values = parser, values


def programs() -> dict[str, Main]:
    """Every program by its name."""
    from demo.__main__ import main as demo
    from serving.__main__ import main as serve
    from serving.classify import main as classify
    from trainer_job.__main__ import main as train

    return {
        "stratified-train": train,
        "stratified-serve": serve,
        "stratified-classify": classify,
        "stratified-demo": demo,
    }


def parser_of(main: Main, argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser that `main` parses `argv` with, without parsing."""
    return _caught(main, argv, read=False).parser


def parse(main: Main, argv: Sequence[str]) -> argparse.Namespace:
    """What `main` reads out of `argv`; raises SystemExit for a line that it refuses."""
    values = _caught(main, argv, read=True).values
    if values is None:
        raise SystemExit(2)
    return values


def _caught(main: Main, argv: Sequence[str], *, read: bool) -> Parsed:
    with _watching(read=read):
        try:
            code = main(list(argv))
        except Parsed as parsed:
            return parsed
    raise SystemExit(code)  # it ended before, or without, reading the whole line


@contextmanager
def _watching(*, read: bool) -> Iterator[None]:
    original = argparse.ArgumentParser.parse_args

    def watched(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        raise Parsed(self, original(self, args, namespace) if read else None)

    argparse.ArgumentParser.parse_args = watched  # type: ignore[method-assign]  # for this moment
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]  # as it was
