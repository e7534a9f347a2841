"""Structured logs: one JSON object a line on stderr, or coloured lines on a terminal; never any text of a
request.

A text is described by the first half of its SHA-256 and its lengths, an exception by its type and where it
was raised: its message may quote the input, and is shown at DEBUG alone.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import traceback
from typing import Any, TextIO

import structlog


def configure(*, level: str, fmt: str, stream: TextIO | None = None) -> None:
    """Set up structlog; `fmt` is "json", "console", or "auto": console on a terminal, JSON elsewhere."""
    target = stream or sys.stderr
    human = fmt == "console" or (fmt == "auto" and target.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if human else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=_filtering(level),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """Log from this level on, from now on; loggers ask at every line, so all of them follow."""
    structlog.configure(wrapper_class=_filtering(level))


def fingerprint(text: str) -> dict[str, object]:
    """What may be logged of a text: a hash that finds equal texts again, and its length."""
    data = text.encode("utf-8", "surrogatepass")
    return {"text_sha256": hashlib.sha256(data).hexdigest()[:32], "text_bytes": len(data)}


def describe(error: BaseException) -> dict[str, object]:
    """What may be logged of an exception: its type and the last frames, not its message."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in frames]
    return {"error_type": type(error).__qualname__, "error_at": where}


def _filtering(level: str) -> Any:
    return structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level])
