"""The command lines: every flag of the programs, out of their own parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from docs.generate import tables
from docs.generate.programs import parser_of, programs

SUBPROGRAMS = {"stratified-serve": ("check",), "stratified-classify": ("health",)}
"""Words that a program takes before it parses."""


def write() -> str:
    """docs/reference/commands.md."""
    sections: list[str] = []
    for name, main in programs().items():
        sections += _sections(name, parser_of(main))
        for word in SUBPROGRAMS.get(name, ()):
            sections += _sections(f"{name} {word}", parser_of(main, [word]))
    return tables.page(
        "Command lines",
        "Each program says the same with `--help`. [Exit codes](exit-codes.md) have a page of their own.",
        *sections,
    )


def _sections(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """A section for the program, and one for each of its commands."""
    yield f"## {name}"
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    flags = [action for action in parser._actions if action not in commands]
    if rows := [_row(action) for action in flags if not isinstance(action, argparse._HelpAction)]:
        yield tables.table(("argument", "meaning", "default"), rows)
    for action in commands:
        told = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for word, command in action.choices.items():
            yield f"### {name} {word}"
            yield f"{told.get(word, '')[:1].upper()}{told.get(word, '')[1:]}."
            inner = [_row(a) for a in command._actions if not isinstance(a, argparse._HelpAction)]
            if inner:
                yield tables.table(("argument", "meaning", "default"), inner)


def _row(action: argparse.Action) -> tuple[str, str, str]:
    shown = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = " ".join(shown) if isinstance(shown, tuple) else shown
    if action.choices is not None and not isinstance(action.choices, range):
        value = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    if action.option_strings:
        name = ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 and value else "")
    else:
        name = value or action.dest
    help_text = (action.help or "") % {"default": action.default, "prog": ""} if action.help else ""
    plain = action.default in (None, False, [], argparse.SUPPRESS, "")
    default = (
        "required" if action.required and action.option_strings else ("" if plain else str(action.default))
    )
    return tables.code(name), help_text, tables.code(default) if default not in ("", "required") else default
