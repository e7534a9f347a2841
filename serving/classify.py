"""`stratified-classify`: classifies texts of the command line, a file or stdin with a running server.

    stratified-classify "The plot drags, but the ending is worth it." --domain imdb stratified-classify
    --input reviews.txt --json        one text a line; .jsonl: objects with text, domain, id
    stratified-classify health                            0 when the server is ready

Exit codes: 0 every text was classified, or the server is ready; 1 some text was not; 2 a bad flag or
unreadable input; 3 the server cannot be reached or is not ready; 4 the server refused the call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import grpc

from serving.client import DEADLINE, DEFAULT_TARGET, READINESS, Answer, CallFailed, Client, Failure, Security
from serving.errors import BadSettings
from serving.types import Classification, Item, Options, Truncation

GOOD, SOME_FAILED, BAD_INPUT, UNREACHABLE, REFUSED = range(5)


class BadInput(Exception):  # noqa: N818  a meaning, as in serving.errors
    """The input cannot be read as texts."""


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
    except BrokenPipeError:  # `… | head` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stratified-classify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="*", help="the texts")
    parser.add_argument("--input", metavar="FILE", help="read texts from a file, or from stdin with -")
    parser.add_argument("--domain", default="", help="the domain of the texts; empty: the model infers it")
    parser.add_argument("--model", default="", help="the variant to ask; empty: the server's default")
    _add_target(parser)
    parser.add_argument(
        "--deadline", type=float, default=DEADLINE, help="seconds for a call (default: %(default)g)"
    )
    parser.add_argument(
        "--top-k", type=int, default=0, choices=range(1000), metavar="K", help="labels to show; 0: all"
    )
    parser.add_argument(
        "--truncation", type=str.upper, choices=[t.value for t in Truncation], help="for too long texts"
    )
    parser.add_argument(
        "--strict-domain", action="store_true", default=None, help="an unknown domain is an error"
    )
    parser.add_argument(
        "--explain", action="store_true", help="show the strata and the saliency of each token"
    )
    parser.add_argument("--logits", action="store_true", help="add the raw outputs (with --json)")
    parser.add_argument("--timings", action="store_true", help="add the time of each stage (with --json)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a text")
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
    parser = argparse.ArgumentParser(
        prog="stratified-classify health", description="Ask whether the server is ready."
    )
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
    options = Options(
        top_k=arguments.top_k,
        raw_logits=arguments.logits,
        truncation=Truncation(arguments.truncation) if arguments.truncation else None,
        explain=arguments.explain,
        timings=arguments.timings,
        strict_domain=arguments.strict_domain,
    )
    with Client(arguments.target, deadline=arguments.deadline, security=_security(arguments)) as client:
        pairs = _answers(client, arguments, options)
        write = _write_json if arguments.json else _write_tables
        failures = write(pairs, sys.stdout)
    return SOME_FAILED if failures else GOOD


def _answers(
    client: Client, arguments: argparse.Namespace, options: Options
) -> Iterator[tuple[Item, Answer]]:
    if arguments.input is None:
        items = [Item(text, arguments.domain, str(n)) for n, text in enumerate(arguments.text, start=1)]
        if len(items) == 1:
            found = client.classify(
                items[0].text, domain=arguments.domain, model=arguments.model, options=options
            )
            yield items[0], found
            return
        yield from zip(
            items, client.classify_batch(items, model=arguments.model, options=options), strict=True
        )
        return
    sent: deque[Item] = deque()
    broken: list[BadInput] = []

    def remembered() -> Iterator[Item]:
        """gRPC reads this on a thread of its own, where an exception would be lost."""
        try:
            for item in read_items(arguments.input, domain=arguments.domain):
                sent.append(item)
                yield item
        except BadInput as error:
            broken.append(error)

    for _, answer in client.classify_stream(remembered(), model=arguments.model, options=options):
        yield sent.popleft(), answer
    if broken:
        raise broken[0]


def read_items(source: str, *, domain: str) -> Iterator[Item]:
    """Texts of a file, or of stdin for "-": one a line, or objects of a .jsonl file; ids are line numbers.

    Blank lines are skipped. Raises `BadInput` for a file that cannot be read, or a line that is no such
    object.
    """
    try:
        if source == "-":
            yield from _lines(sys.stdin, domain, jsonl=False)
            return
        with Path(source).open(encoding="utf-8") as stream:
            yield from _lines(stream, domain, jsonl=source.endswith(".jsonl"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{source}: {error}; give a readable UTF-8 file") from None


def _lines(stream: TextIO, domain: str, *, jsonl: bool) -> Iterator[Item]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        if not jsonl:
            yield Item(line.rstrip("\n"), domain, str(number))
            continue
        try:
            row = json.loads(line)
            yield Item(str(row["text"]), str(row.get("domain", domain)), str(row.get("id", number)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput(
                f"line {number} is no JSON object with a text; correct it, or use a .txt file"
            ) from None


def _write_json(pairs: Iterable[tuple[Item, Answer]], stream: TextIO) -> int:
    failures = 0
    for item, answer in pairs:
        failed = isinstance(answer, Failure)
        failures += failed
        row = (
            {"id": item.id, "error": _plain(asdict(answer))}
            if failed
            else {"id": item.id, **result_json(answer)}
        )
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        stream.flush()
    return failures


def result_json(answer: Answer) -> dict[str, Any]:
    """An answer as plain JSON values, under the names of the wire contract."""
    values: dict[str, Any] = _plain(asdict(answer))
    if isinstance(answer, Classification):
        values["truncated"] = answer.truncated
        values["scores"] = [{"label": label, "score": score} for label, score in answer.scores]
        values["domain_scores"] = [{"domain": name, "score": score} for name, score in answer.domain_scores]
        values["strata"] = _shares(answer.strata)
        for token in values["tokens"]:
            token["strata"] = _shares(token["strata"])
    return values


def _shares(strata: Iterable[float]) -> list[dict[str, float]]:
    return [{"index": index, "occupancy": share} for index, share in enumerate(strata)]


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _write_tables(pairs: Iterable[tuple[Item, Answer]], stream: TextIO) -> int:
    from serving.tables import answers_table, tokens_table, write

    rows = list(pairs)
    write(stream, answers_table(rows))
    for item, answer in rows:
        if isinstance(answer, Classification) and answer.tokens:
            write(stream, tokens_table(item, answer))
    return sum(isinstance(answer, Failure) for _, answer in rows)


def _complain(text: str) -> None:
    sys.stderr.write(f"stratified-classify: {text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
