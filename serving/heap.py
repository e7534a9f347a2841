"""The heap of a process that serves: what is there to stay is left alone, what a model leaves goes back.

It knows Python's collector and the C library's allocator, and nothing of models.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

__all__ = ["give_back", "settle"]


def settle() -> None:
    """Take everything that is alive out of the collector's sight; to be called once, before requests come.

    A full collection stops every thread. With the libraries of a model it visits 400,000 objects, which are
    modules and never die: 0.2 s at a time when callers wait (seen on two cores; nothing after this).
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what a model that is gone has left in cycles, and hand free pages back to the system.

    Models are loaded on other threads than they are freed on; glibc keeps a heap for each, and pages that are
    free in all of them add up with every model. Elsewhere than on glibc the second half does nothing.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
