"""`stratified-demo`: the service and a page to try it, on loopback.

    stratified-demo --models results/hf_trainer_stratified     a service with every variant, and the page
    stratified-demo --target 127.0.0.1:50051                   the page alone, for a service that runs

Ctrl-C stops both. Exit codes: 0 stopped; 2 a bad flag, or the `demo` extra is not installed; 4 a port is
in use; others as `stratified-serve`, when the service ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from demo.errors import CannotStart

REPORT = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    options = build_parser().parse_args(argv)
    try:
        check(options)
        return run(options)
    except CannotStart as error:
        print(f"stratified-demo: {error}", file=sys.stderr)
        return error.code


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="stratified-demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--models", type=Path, metavar="DIR", help="a sweep's results, served by a service of its own"
    )
    where.add_argument("--target", metavar="HOST:PORT", help="a service that runs already")
    parser.add_argument("--port", type=int, default=50051, help="port of the service (default: %(default)s)")
    parser.add_argument(
        "--page-port", type=int, default=7860, help="port of the page; 0: any (default: %(default)s)"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="a sweep's report.html (default: DIR/report.html)"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="FILE", help="more examples: CSV with text and domain"
    )
    parser.add_argument(
        "--serve-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="handed on to stratified-serve, as --serve-flag=--threads=2; may be repeated",
    )
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is started; raises `CannotStart`."""
    if importlib.util.find_spec("gradio") is None:
        raise CannotStart(
            "the page needs Gradio, which is not installed; pip install 'stratified-sentiment[demo]'"
        )
    if options.models is not None and not options.models.exists():
        raise CannotStart(
            f"--models {options.models}: no such folder; run `make sweep` first, or name another", code=3
        )
    if options.target is not None and options.serve_flag:
        raise CannotStart("--serve-flag is for a service of the page's own; leave it out beside --target")


def run(options: argparse.Namespace) -> int:
    """Start what was asked for and wait for a signal, or for the service to end; the exit code."""
    from demo.asking import Asker
    from demo.child import Child
    from demo.web import Web, silence

    silence()
    known = examples(options.examples)
    from demo.handlers import Page  # Gradio takes seconds
    from demo.page import CSS, build

    stopped, codes = threading.Event(), [0]

    def end(code: int) -> None:
        codes[0] = code or 1  # a service that ends by itself is no success
        stopped.set()

    report = options.report or (options.models / REPORT if options.models else None)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stratified-demo-"))
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: stopped.set()))
        asker = Asker(options.target or f"127.0.0.1:{options.port}")
        stack.callback(asker.close)
        page = Page(asker, examples=known, report=report, folder=Path(folder))
        web = stack.enter_context(Web(build(page), port=options.page_port, css=CSS))
        if options.models is not None:
            child = Child(options.models, port=options.port, more=options.serve_flag, gone=end)
            stack.enter_context(child)
        print(f"page: {web.url}   service: {asker.target}   Ctrl-C stops", flush=True)
        stopped.wait()
    return codes[0]


def examples(path: Path | None) -> dict[str, tuple[str, ...]]:
    """The page's own, and those of a file; raises `CannotStart` for a file that is no good."""
    from demo.examples import EXAMPLES, read_examples
    from demo.sheet import BadFile

    try:
        return {**EXAMPLES, **(read_examples(path) if path else {})}
    except BadFile as error:
        raise CannotStart(f"--examples {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
