"""One JSON object a line, and no text in any of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from serving.logs import configure, describe, fingerprint


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("fmt", ["json", "auto"])
def test_lines_are_json_where_nobody_watches(fmt: str) -> None:
    stream = io.StringIO()
    configure(level="INFO", fmt=fmt, stream=stream)
    log = structlog.get_logger("x")
    log.debug("unseen")
    log.info("seen", number=3)
    [line] = stream.getvalue().splitlines()
    assert json.loads(line).items() >= {"event": "seen", "number": 3, "level": "info"}.items()


def test_a_person_gets_readable_lines() -> None:
    stream = io.StringIO()
    configure(level="DEBUG", fmt="console", stream=stream)
    structlog.get_logger("x").debug("seen", number=3)
    assert "seen" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_text_is_a_hash_and_a_length() -> None:
    found = fingerprint("ä secret")
    assert found["text_bytes"] == 9
    assert found == fingerprint("ä secret") != fingerprint("another")
    assert "secret" not in str(found)


def test_an_exception_is_a_type_and_a_place() -> None:
    try:
        raise ValueError("secret")
    except ValueError as error:
        found = describe(error)
    assert found["error_type"] == "ValueError"
    assert "test_logs.py" in str(found["error_at"])
    assert "secret" not in str(found)
