"""The flags that say what to read from a file and where the answers go; both programs that take files share
them.
"""

from __future__ import annotations

import argparse

from serving.files.rows import TEXT, BadInput, Columns


def add_column_flags(parser: argparse._ActionsContainer) -> None:
    """What to read of each row."""
    parser.add_argument(
        "--text-column", default=TEXT, metavar="NAME", help="the column of the texts (default: %(default)s)"
    )
    parser.add_argument(
        "--domain-column",
        metavar="NAME",
        help="the column of their domains; by default domain, where there is one",
    )
    parser.add_argument(
        "--id-column",
        metavar="NAME",
        help="the column that comes back as id; by default id, or else the row's number",
    )
    parser.add_argument(
        "--keep", default="", metavar="NAMES", help="columns to copy to the output, with commas between"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew, whatever is in the place of the output"
    )


def columns_of(arguments: argparse.Namespace) -> Columns:
    """What the flags say; raises `BadInput` for two that exclude each other."""
    if arguments.domain and arguments.domain_column:
        raise BadInput("--domain and --domain-column exclude each other; give one of them")
    keep = tuple(dict.fromkeys(name for name in arguments.keep.split(",") if name))
    return Columns(
        arguments.text_column, arguments.domain_column, arguments.id_column, keep, arguments.domain
    )


def parse_shard(text: str) -> tuple[int, int]:
    """From "2/8"; raises `argparse.ArgumentTypeError`."""
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; give i/N with i from 0 to N-1, as 0/4")
    return int(first), int(count)
