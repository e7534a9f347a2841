"""What is alive leaves the collector's sight, what is dead goes."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
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


ARENAS = """
import ctypes, sys, threading
from serving import heap
heap.share({environment})
c = ctypes.CDLL(None)
c.malloc.restype = c.fdopen.restype = ctypes.c_void_p
here = threading.Barrier(4)
def allocate():
    here.wait()
    c.malloc(100)
    here.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(c.fdopen(1, b"w"))
c.malloc_info(0, out)
c.fflush(out)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="not glibc: no arenas to count")
@pytest.mark.parametrize(("environment", "one"), [({}, True), ({"MALLOC_ARENA_MAX": "4"}, False)])
def test_threads_share_one_heap_unless_the_user_says_otherwise(
    environment: dict[str, str], one: bool
) -> None:
    told = {**os.environ, **environment}
    command = [sys.executable, "-c", ARENAS.format(environment=environment)]
    found = subprocess.run(command, env=told, capture_output=True, text=True, check=True).stdout
    assert (found.count("<heap nr=") == 1) is one


@pytest.mark.parametrize("library", [object(), None], ids=["another C library", "none at all"])
def test_another_allocator_is_no_error(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: None) -> object:
        if library is None:
            raise OSError("no such file")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    heap.give_back()
    heap.share({})
