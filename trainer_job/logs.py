"""structlog's set-up for the job: readable lines on a terminal, one JSON object a line elsewhere, on stderr.

It does not know what is logged. Nothing is configured at import; `configure` is called by `__main__` and the
worker.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def configure(*, stream: TextIO | None = None, json_lines: bool | None = None, level: str = "INFO") -> None:
    """Send all log lines to `stream` (stderr); `json_lines=None` decides by whether it is a terminal."""
    target = stream or sys.stderr
    as_json = not target.isatty() if json_lines is None else json_lines
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=target.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: structlog.WriteLogger(stream or sys.stderr),  # stderr may be replaced later
        cache_logger_on_first_use=False,
    )
