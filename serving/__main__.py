"""`stratified-serve`: the command line of the server.

    stratified-serve --models DIR …       serve until SIGTERM or Ctrl-C
    stratified-serve check DIR            verify the bundles in DIR without serving
    stratified-serve score …              classify a file without serving; score --help has its own exit codes

Exit codes: 0 drained, or everything verified; 1 a bug; 2 a bad flag or variable; 3 no usable model, or a
bundle that does not verify; 4 a port is in use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving import heap
from serving.errors import BadStore, StartError
from serving.settings import parse_settings


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command line; its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a process of its own has no use for the Auto classes, and starts sooner without
        os.environ.setdefault("STRATIFIED_AUTO_CLASSES", "0")
    try:
        if arguments[:1] == ["check"]:
            return _check(arguments[1:])
        if arguments[:1] == ["score"]:
            from serving.scoring.command import main as score

            return score(arguments[1:], os.environ if environment is None else environment)
        if arguments[:1] == ["serve"]:
            del arguments[0]
        return _serve(arguments, os.environ if environment is None else environment, own=argv is None)
    except StartError as error:
        print(f"stratified-serve: {error}", file=sys.stderr)
        return error.exit_code


def _serve(argv: Sequence[str], environment: Mapping[str, str], *, own: bool) -> int:
    """Serve until a signal; `own`: the process is there for nothing else, and may end from within."""
    settings = parse_settings(argv, environment, prog="stratified-serve", description=__doc__ or "")
    heap.share(environment)
    import prometheus_client

    from serving.leaving import leave
    from serving.logs import configure
    from serving.running import serve

    configure(level=settings.log_level, fmt=settings.log_format)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    asyncio.run(serve(settings, registry=registry, leave=leave if own else None))
    return 0


def _check(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="stratified-serve check", description="Verify bundles without serving."
    )
    parser.add_argument("directory", type=Path, help="one bundle, or a sweep's results folder")
    directory: Path = parser.parse_args(argv).directory

    from serving.cpu import available_cores
    from serving.engines.choice import Wishes
    from serving.loading import load
    from serving.store import survey

    failed = 0
    for found in survey(directory).values():
        try:
            if found.error:
                raise BadStore(found.error)
            loaded = load(
                found.path,
                wishes=Wishes(device="cpu", threads=available_cores()),
                clock=time.monotonic,
                announce=lambda step: None,
            )
        except BadStore as error:
            failed += 1
            print(f"{found.name}: BAD: {error}")
        else:
            version, seconds = loaded.card.version, f"{loaded.card.load_seconds:.1f} s"
            print(f"{version.name}: good: version {version.version}, sha256 {version.sha256}, {seconds}")
    return BadStore.exit_code if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
