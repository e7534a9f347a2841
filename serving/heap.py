"""The heap of a process that serves: what is there to stay is left alone, what a model leaves goes back.

It knows Python's collector and the C library's allocator, and nothing of models.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["give_back", "settle", "share"]

M_ARENA_MAX = -8  # of glibc's malloc.h


def share(environment: Mapping[str, str]) -> None:
    """Let all threads allocate from one heap; to be called before there is a second thread.

    glibc gives each thread one of eight heaps a core. A model is loaded on one thread, run on another and
    freed on a third, and what little stays alive in each heap keeps its pages: 137 to 178 MiB after nineteen
    swaps under load, and 145 to 144 with one heap. MALLOC_ARENA_MAX in `environment` says otherwise;
    elsewhere than on glibc this does nothing.
    """
    if "MALLOC_ARENA_MAX" not in environment:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def settle() -> None:
    """Take everything that is alive out of the collector's sight; to be called once, before requests come.

    A full collection stops every thread. With the libraries of a model it visits 400,000 objects, which are
    modules and never die: 0.2 s at a time when callers wait (seen on two cores; nothing after this).
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what a model that is gone has left in cycles, and hand free pages back to the system.

    Elsewhere than on glibc the second half does nothing.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
