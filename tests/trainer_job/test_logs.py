"""Log lines: JSON where machines read, words where people do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from trainer_job import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger().info("progress", unit="moe:0", loss=0.5)
    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["unit"], entry["level"]) == ("progress", "moe:0", "info")
    assert entry["timestamp"].endswith("Z")


def test_a_terminal_gets_words() -> None:
    stream = Terminal()
    logs.configure(stream=stream)
    structlog.get_logger().info("progress", unit="moe:0")
    assert "progress" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_level_holds_and_errors_keep_their_traceback() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, level="ERROR")
    structlog.get_logger().info("quiet")
    structlog.get_logger().error("loud", exc_info=ValueError("x"))
    assert "ValueError: x" in json.loads(stream.getvalue())["exception"]
