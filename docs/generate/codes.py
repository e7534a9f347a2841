"""Exit codes of the programs, and the statuses of the service, out of their trees of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from docs.generate import tables

T = TypeVar("T", bound=Exception)
Row = tuple[int, str, str]


def write() -> str:
    """docs/reference/exit-codes.md."""
    from serving import classify
    from serving.errors import ServingError, StartError
    from serving.rpc.status import status_code
    from trainer_job.errors import JobError

    train: list[Row] = [(kind.exit_code, kind.__name__, _told(kind)) for kind in _tree(JobError)]
    serve: list[Row] = [(kind.exit_code, kind.__name__, _told(kind)) for kind in _tree(StartError)]
    statuses = [
        (tables.code(kind.reason), status_code(kind.__new__(kind)).name, _told(kind))
        for kind in _tree(ServingError)
        if not kind.__subclasses__() or kind.reason != "UNKNOWN"
    ]
    return tables.page(
        "Exit codes and statuses",
        "Every refusal is one line with the value, the rule and the cure.",
        "## stratified-train\n\n0: every unit is complete, and the results are valid.",
        _exits(train),
        "## stratified-serve\n\n0: drained after SIGTERM or Ctrl-C, or everything verified.",
        _exits(serve),
        f"## stratified-classify\n\n{_paragraph(classify.__doc__ or '')}",
        "## stratified-demo\n\n0: stopped. 2: a bad flag, or the `demo` extra is not installed. 4: "
        "a port is in use. "
        "Others as stratified-serve, when the service ends.",
        "## Statuses of the service\n\n`reason` stands in `ErrorInfo` of the status's details.",
        tables.table(("reason", "gRPC status", "meaning"), statuses),
    )


def _exits(rows: list[Row]) -> str:
    ordered = sorted(rows, key=lambda row: row[0])
    return tables.table(
        ("code", "error", "meaning"), ((str(code), tables.code(name), told) for code, name, told in ordered)
    )


def _tree(kind: type[T]) -> Iterator[type[T]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _told(kind: type) -> str:
    return (kind.__doc__ or "").strip()


def _paragraph(text: str) -> str:
    """The paragraph of a docstring that lists the codes."""
    found = [part for part in text.split("\n\n") if part.strip().startswith("Exit codes:")]
    return " ".join(found[0].split()) if found else ""
