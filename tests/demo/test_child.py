"""The service as a child ends with the page; test_main.py tests that its own end is noticed."""

from __future__ import annotations

import queue
from pathlib import Path

from demo.child import Child


def test_one_that_is_stopped_is_not_reported(tmp_path: Path) -> None:
    ended: queue.Queue[int] = queue.Queue()
    child = Child(tmp_path, port=0, gone=ended.put)
    with child:
        assert child.running
    assert ended.empty()


def test_one_that_was_never_started_needs_no_stop(tmp_path: Path) -> None:
    child = Child(tmp_path, port=0, gone=lambda code: None)
    child.__exit__(None, None, None)
    assert not child.running
