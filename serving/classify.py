"""`stratified-classify`: classifies texts of the command line, a file or stdin with a running server.

    stratified-classify "The plot drags, but the ending is worth it." --domain imdb
    stratified-classify --input reviews.csv --text-column body --output out.parquet
    stratified-classify --input reviews.txt --json        prints; - reads stdin, one text a line
    stratified-classify health                            0 when the server is ready

Files are .txt (one text a line), .csv, .tsv, .jsonl, each also .gz, and .parquet. A run with --output that
was stopped goes on where it was when it is started again.

Exit codes: 0 every text was classified, or the server is ready; 1 some text was not; 2 a bad flag, input that
cannot be read or output that cannot be written; 3 the server cannot be reached or is not ready; 4 the server
refused the call; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from serving.client import (
    DEADLINE,
    DEFAULT_TARGET,
    READINESS,
    Answer,
    AsyncClient,
    CallFailed,
    Client,
    Security,
)
from serving.errors import BadSettings
from serving.files.flags import add_column_flags, columns_of
from serving.files.formats import STDIN, format_to_read
from serving.files.rows import BadInput
from serving.plain import result_json, row_json
from serving.steady import PATIENCE
from serving.types import Classification, Item, Options, Truncation

if TYPE_CHECKING:
    from serving.files.asking import Asking

__all__ = ["BadInput", "main", "result_json"]

PROGRAM = "stratified-classify"
GOOD, SOME_FAILED, BAD_INPUT, UNREACHABLE, REFUSED = range(5)
INTERRUPTED = 130  # as a shell says it
NOT_IN_FILES = ("json", "explain", "logits", "timings", "top_k")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["health"]:
            return _health(arguments[1:])
        return _classify(_parser().parse_args(arguments))
    except (BadInput, BadSettings) as error:
        _complain(str(error))
        return BAD_INPUT
    except CallFailed as error:
        _complain(str(error))
        return UNREACHABLE if error.failure.code is grpc.StatusCode.UNAVAILABLE else REFUSED
    except KeyboardInterrupt:
        _complain("interrupted; with --output, the same command goes on from here")
        return INTERRUPTED
    except BrokenPipeError:  # `… | head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="*", help="the texts")
    parser.add_argument("--domain", default="", help="the domain of the texts; empty: the model infers it")
    parser.add_argument("--model", default="", help="the variant to ask; empty: the server's default")
    _add_target(parser)
    parser.add_argument(
        "--deadline", type=float, default=DEADLINE, help="seconds for a call (default: %(default)g)"
    )
    parser.add_argument(
        "--truncation", type=str.upper, choices=[t.value for t in Truncation], help="for too long texts"
    )
    parser.add_argument(
        "--strict-domain", action="store_true", default=None, help="an unknown domain is an error"
    )
    shown = parser.add_argument_group("what is printed")
    shown.add_argument("--json", action="store_true", help="print one JSON object a text")
    shown.add_argument(
        "--top-k", type=int, default=0, choices=range(1000), metavar="K", help="labels to show; 0: all"
    )
    shown.add_argument(
        "--explain", action="store_true", help="show the strata and the saliency of each token"
    )
    shown.add_argument("--logits", action="store_true", help="add the raw outputs (with --json)")
    shown.add_argument("--timings", action="store_true", help="add the time of each stage (with --json)")
    files = parser.add_argument_group("files")
    files.add_argument("--input", metavar="FILE", help="read texts from a file, or from stdin with -")
    files.add_argument(
        "--output", type=Path, metavar="FILE", help="write a table: .csv, .tsv, .jsonl or .parquet"
    )
    add_column_flags(files)
    files.add_argument(
        "--patience", type=float, default=PATIENCE,
        help="seconds without any answer after which a file's run ends (default: %(default)g)",
    )  # fmt: skip
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = os.environ.get("STRATIFIED_TARGET", DEFAULT_TARGET)
    parser.add_argument(
        "--target", default=target, help="host:port of the server (STRATIFIED_TARGET; %(default)s)"
    )
    parser.add_argument("--tls", action="store_true", help="speak TLS; the probe port of a server has none")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="who vouches for the server, PEM")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="your own certificate, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key, PEM")
    parser.add_argument("--server-name", default="", metavar="NAME", help="the name in its certificate")
    parser.add_argument(
        "--token-file",
        type=Path,
        default=os.environ.get("STRATIFIED_TOKEN_FILE") or None,
        metavar="FILE",
        help="its first line is sent as a bearer token (STRATIFIED_TOKEN_FILE)",
    )


def _security(arguments: argparse.Namespace) -> Security:
    return Security(
        tls=arguments.tls,
        ca=arguments.ca,
        cert=arguments.cert,
        key=arguments.key,
        server_name=arguments.server_name,
        token_file=arguments.token_file,
    )


def _health(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} health", description="Ask whether the server is ready.")
    _add_target(parser)
    parser.add_argument("--service", default=READINESS, help="the name to ask for; empty: liveness")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds (default: %(default)g)")
    arguments = parser.parse_args(argv)
    with Client(arguments.target, attempts=1, security=_security(arguments)) as client:
        ready = client.health(arguments.service, deadline=arguments.deadline)
    sys.stdout.write("SERVING\n" if ready else "NOT_SERVING\n")
    return GOOD if ready else UNREACHABLE


def _classify(arguments: argparse.Namespace) -> int:
    if bool(arguments.text) == (arguments.input is not None):
        raise BadInput("give either texts or --input FILE (- is stdin), and not both")
    if arguments.text and arguments.output:
        raise BadInput("--output goes with --input FILE; leave it out to print")
    options = Options(
        top_k=arguments.top_k,
        raw_logits=arguments.logits,
        truncation=Truncation(arguments.truncation) if arguments.truncation else None,
        explain=arguments.explain,
        timings=arguments.timings,
        strict_domain=arguments.strict_domain,
    )
    if arguments.input is None:
        return _texts(arguments, options)
    return (_file if arguments.output else _print)(arguments, options)


def _texts(arguments: argparse.Namespace, options: Options) -> int:
    """Those of the command line: one in a call of its own, several in one call."""
    items = [Item(text, arguments.domain, str(n)) for n, text in enumerate(arguments.text, start=1)]
    with Client(arguments.target, deadline=arguments.deadline, security=_security(arguments)) as client:
        if len(items) == 1:
            found: list[Answer] = [
                client.classify(
                    items[0].text, domain=arguments.domain, model=arguments.model, options=options
                )
            ]
        else:
            found = client.classify_batch(items, model=arguments.model, options=options)
    pairs = list(zip(items, found, strict=True))
    failed = sum([_write_json(*pair) for pair in pairs]) if arguments.json else _write_tables(pairs)
    return SOME_FAILED if failed else GOOD


@contextlib.asynccontextmanager
async def _asking(arguments: argparse.Namespace, options: Options) -> AsyncIterator[Asking]:
    from serving.files.asking import Asking

    security = _security(arguments)
    async with AsyncClient(arguments.target, deadline=arguments.deadline, security=security) as client:
        yield Asking(client, arguments.model, options, arguments.patience, live=arguments.input == STDIN)


def _file(arguments: argparse.Namespace, options: Options) -> int:
    """From a file into a file."""
    from serving.files.run import Job, carried_out

    idle = [f"--{name.replace('_', '-')}" for name in NOT_IN_FILES if getattr(arguments, name)]
    if idle:
        raise BadInput(f"{idle[0]} has no place in the columns of a file; leave it out, or print with --json")
    asked = {
        "model": arguments.model,
        "truncation": arguments.truncation,
        "strict_domain": bool(arguments.strict_domain),
    }
    job = Job(arguments.input, arguments.output, columns_of(arguments), asked, overwrite=arguments.overwrite)
    with carried_out(job, tell=_complain) as run:
        if not run.complete:

            async def work() -> None:
                async with _asking(arguments, options) as asking:
                    await asking.file(run)

            asyncio.run(work())
        return SOME_FAILED if run.state.failed else GOOD


def _print(arguments: argparse.Namespace, options: Options) -> int:
    """From a file to stdout, row by row unless it is a table for people."""
    from serving.files.readers import open_rows

    reading = open_rows(arguments.input, format_to_read(arguments.input), columns_of(arguments))

    async def work() -> int:
        async with _asking(arguments, options) as asking:
            pairs = ((row.item, answer) async for row, answer in asking.of(reading.rows))
            if arguments.json:
                return sum([_write_json(item, answer) async for item, answer in pairs])
            return _write_tables([pair async for pair in pairs])

    with contextlib.closing(reading):
        return SOME_FAILED if asyncio.run(work()) else GOOD


def _write_json(item: Item, answer: Answer) -> bool:
    """Print one; whether it failed."""
    sys.stdout.write(json.dumps(row_json(item, answer), ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return not isinstance(answer, Classification)


def _write_tables(pairs: Iterable[tuple[Item, Answer]]) -> int:
    """Print all; how many failed."""
    from serving.tables import answers_table, tokens_table, write

    rows = list(pairs)
    write(sys.stdout, answers_table(rows))
    for item, answer in rows:
        if isinstance(answer, Classification) and answer.tokens:
            write(sys.stdout, tokens_table(item, answer))
    return sum(not isinstance(answer, Classification) for _, answer in rows)


def _complain(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
