"""What the interpreter inside of Triton's Python backend reads as it starts, before any model.

PyTriton brings that interpreter, an early release of its series, and it reads the standard library that is
installed. The resource tracker of a later release asks its lock how often it is held, which the early one's
lock cannot say; the lock that is written in Python can. That interpreter heeds no PYTHONPATH: hence this file
lies in the peer's environment, as `sitecustomize`.
"""

import threading
from multiprocessing import resource_tracker
from typing import Any

tracker: Any = resource_tracker._resource_tracker
if not hasattr(tracker._lock, "_recursion_count"):
    tracker._lock = threading._PyRLock()  # type: ignore[attr-defined]
