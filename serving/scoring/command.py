"""`stratified-serve score`: classifies a file without a server, with the engine and scheduler of the service.

    stratified-serve score --models DIR --input reviews.parquet --text-column body --output out.parquet
    stratified-serve score --models DIR --input reviews.csv --output out.csv --shard 3/8    every eighth row

Formats by extension: .csv, .tsv, .jsonl, each also .gz, .parquet, and to read .txt. A run that was stopped
goes on where it was when it is started again, and ends in the same bytes. With --shard i/N the output is
named for its shard, out-00003-of-00008.csv, and `row` counts the rows of the whole file.

Exit codes: 0 every row was classified; 1 some have an error in the place of an answer; 2 a bad flag or
variable, input that cannot be read or output that cannot be written; 3 no usable model; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.calls import Answer
from serving.errors import BadSettings
from serving.files.answering import refused
from serving.files.flags import add_column_flags, columns_of, parse_shard
from serving.files.rows import BadInput, Row
from serving.files.run import Job, carried_out
from serving.scoring.scorer import Scorer
from serving.settings import PREFIX, Settings, read_settings
from serving.types import Options

PROGRAM = "stratified-serve score"
GOOD, SOME_FAILED, INTERRUPTED = 0, 1, 130
NAMES = (
    "models", "model", "engine", "precision", "device", "threads", "batch_tokens", "batch_items",
    "padding_tokens", "max_text_bytes", "truncation",
)  # fmt: skip
MADE = (
    "engine",
    "precision",
    "threads",
    "batch_tokens",
    "padding_tokens",
)  # what a run that goes on does as it did


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command line; its exit code. Raises `StartError`."""
    arguments = _parser().parse_args(argv)
    try:
        return _score(arguments, environment)
    except BadInput as error:
        raise BadSettings(f"score: {error}") from None
    except KeyboardInterrupt:
        _tell("interrupted; the same command goes on from here")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="the texts; - reads lines of stdin")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="where the answers go")
    parser.add_argument("--domain", default="", help="the domain of every text")
    parser.add_argument(
        "--strict-domain", action="store_true", default=None, help="an unknown domain is an error"
    )
    add_column_flags(parser)
    parser.add_argument(
        "--shard",
        type=parse_shard,
        default=(0, 1),
        metavar="i/N",
        help="score rows i, i+N, i+2N, … (i from 0)",
    )
    parser.add_argument(
        "--chunk", type=int, default=1024, choices=range(1, 65_537), metavar="ROWS",
        help="rows that are batched together, and written at once (default: %(default)s)",
    )  # fmt: skip
    for name in NAMES:
        text = f"{Settings.model_fields[name].description} ({PREFIX}{name.upper()})".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    return parser


def _score(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    settings = _settings(arguments, environment, {})
    options = Options(truncation=settings.truncation, strict_domain=bool(arguments.strict_domain))
    asked = {
        "model": settings.model,
        "truncation": settings.truncation.value,
        "strict_domain": bool(arguments.strict_domain),
        "max_text_bytes": settings.max_text_bytes,
    }
    target = _sharded(arguments.output, arguments.shard)
    job = Job(
        arguments.input,
        target,
        columns_of(arguments),
        asked,
        arguments.chunk,
        arguments.shard,
        arguments.overwrite,
    )
    with carried_out(job, tell=_tell) as run:
        if not run.complete:
            chosen = _settings(arguments, environment, run.state.made)
            with Scorer(**chosen.model_dump()) as scorer:
                steps = run.go(
                    lambda rows: scored(scorer, rows, options, chunk=arguments.chunk),
                    labels=scorer.labels,
                    made=scorer.made,
                )
                asyncio.run(steps)
        return SOME_FAILED if run.state.failed else GOOD


def _settings(
    arguments: argparse.Namespace, environment: Mapping[str, str], made: Mapping[str, Any]
) -> Settings:
    """Flags over variables over what the run was begun with."""
    given = {name: getattr(arguments, name) for name in NAMES}
    for name in MADE:
        if given[name] is None and PREFIX + name.upper() not in environment and name in made:
            given[name] = str(made[name])
    return read_settings(given, environment)


async def scored(
    scorer: Scorer, rows: Iterator[Row], options: Options, *, chunk: int
) -> AsyncIterator[tuple[Row, Answer]]:
    """Rows with their answers, a chunk at a time; the next one is computed while one is written."""
    before: list[tuple[Row, Answer]] = []
    while rows_now := list(itertools.islice(rows, chunk)):
        items = [row.item for row in rows_now if not row.problem]
        working = asyncio.ensure_future(scorer.elsewhere(items, options))
        await asyncio.sleep(0)  # let it begin
        for pair in before:
            yield pair
        answers = iter(await working)
        before = [(row, refused(row) if row.problem else next(answers)) for row in rows_now]
    for pair in before:
        yield pair


def _sharded(target: Path, shard: tuple[int, int]) -> Path:
    first, count = shard
    if count == 1:
        return target
    stem, dot, rest = target.name.partition(".")
    return target.with_name(f"{stem}-{first:05d}-of-{count:05d}{dot}{rest}")


def _tell(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {text}\n")
