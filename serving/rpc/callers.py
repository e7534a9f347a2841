"""Who calls, as far as fairness goes: the name in the client's certificate, or else its host; and how long
they wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving.hosts import peer_host

if TYPE_CHECKING:
    from serving.rpc.interceptors import Context


def caller_of(context: Context) -> str:
    """One name for all connections of a caller.

    A certificate that was verified tells more than an address: it holds behind a proxy, and for all replicas
    of a client. Nothing that a caller may freely choose takes part, or it could call under many names.
    """
    identities: Any = context.peer_identities()  # None without a verified certificate, whatever the stubs say
    for identity in identities or ():
        return f"certificate {identity.decode('utf-8', 'replace')}"
    return peer_host(context.peer())


def time_left(context: Context, *, clock: Callable[[], float] = time.monotonic) -> Callable[[], float | None]:
    """What tells, whenever it is asked, how many seconds the caller still waits; None without a deadline.

    gRPC reckons its `time_remaining` from the wall clock. It is asked once, so that a clock that is set while
    a stream runs neither ends the stream's deadline nor puts it off.
    """
    remaining: Any = context.time_remaining()  # None without a deadline, whatever the stubs say
    began = clock()
    return lambda: None if remaining is None else remaining - (clock() - began)
