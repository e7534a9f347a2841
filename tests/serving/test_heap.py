"""What is alive leaves the collector's sight, what is dead goes."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest

from serving import heap


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_alive_is_left_alone() -> None:
    lost, alive = weakref.ref(Node()), Node()
    heap.settle()
    assert lost() is None, "rubbish is not kept for ever"
    assert gc.get_freeze_count() > 1000
    assert not any(one is alive for one in gc.get_objects())


def test_what_a_model_leaves_in_cycles_is_freed() -> None:
    left = weakref.ref(Node())
    heap.give_back()
    assert left() is None


@pytest.mark.parametrize("library", [object(), None], ids=["another C library", "none at all"])
def test_another_allocator_is_no_error(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: None) -> object:
        if library is None:
            raise OSError("no such file")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    heap.give_back()
