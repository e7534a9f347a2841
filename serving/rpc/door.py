"""The door that calls come through, and how it is closed without hitting anybody.

When a gRPC server stops, the core cancels the calls that are on the wire, or that it has read and not yet
handed over. Their callers see CANCELLED, which no client tries again. Who waits for an answer sends nothing
more: so the calls of the last moment are held until nobody comes and nobody is being answered. Then those who
are held are told to ask another one, and it is the process that ends, and no server: a call that finds no
process is UNAVAILABLE by itself. Only where somebody is still being answered, or the process goes on, is the
server stopped, and the held are told when they can no longer come back through this door.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from serving.errors import Draining

QUIET = 0.1
"""Seconds without a new call after which nobody is taken to be on the way; with time, less is asked for."""
LONGEST = 2.0
"""Seconds that callers who never pause, or are never done, can keep the door from closing."""
LOOK = 0.005
"""Seconds between two looks at whether somebody is still being answered."""
SENT = 0.05
"""Seconds in which an answer that the core was given reaches its caller's machine."""
CALM = 5
"""Looks in a row, all within `LOOK`, that see nobody come."""
SETTLED = 0.5
"""Seconds that callers who are told to go, and come again, can keep the process."""


class Door:
    """Open until `close`; belongs to one server and one event loop."""

    def __init__(self) -> None:
        self._holding, self._closed = False, asyncio.Event()
        self._last = 0.0
        self._inside = self._held = 0

    @contextlib.asynccontextmanager
    async def passage(self, remaining: float | None) -> AsyncIterator[None]:
        """Let a call in that has `remaining` seconds left (None: no deadline), for as long as it is answered.

        Raises `Draining` once the door is closed, and after half of the time that is left, so that a caller
        in a hurry can still ask another one.
        """
        self._inside += 1
        try:
            if self._holding:
                await self._wait(remaining)
            yield
        finally:
            self._inside -= 1

    async def close(self, server: grpc.aio.Server, grace: float, *, leaving: bool = False) -> bool:
        """Hold all who come until nobody comes and nobody is being answered, or for `LONGEST` or half of
        `grace` seconds. Then, unless the process is `leaving` and all is answered, stop `server` and tell
        those who are held; returns when all that was let in is answered, within `grace` seconds.

        True: the server still runs, those who come are held, and `leave` is to tell them.
        """
        begun = self._last = _now()
        self._holding = True
        longest = min(LONGEST, grace / 2)
        while (wait := self._left(begun, longest)) > 0:  # noqa: ASYNC110  for what does not happen
            await asyncio.sleep(wait)
        if leaving and self._inside == self._held:
            return True
        stopping = asyncio.create_task(server.stop(max(0.0, grace - (_now() - begun))))
        await asyncio.sleep(0)  # its first step takes no further call, and says so to every connection
        self._closed.set()
        await stopping
        return False

    async def leave(self) -> None:
        """Tell those who are held, and everybody who comes now; returns when they know, and nobody is seen
        to come. The process is to end at once: who comes later finds nobody.
        """
        self._closed.set()
        until = _now() + LONGEST
        while self._inside and _now() < until:  # noqa: ASYNC110  a look costs less than to wake for each
            await asyncio.sleep(LOOK)
        await asyncio.sleep(SENT)
        calm, until = 0, _now() + SETTLED
        while calm < CALM and _now() < until:
            looked = _now()
            await asyncio.sleep(LOOK / CALM)
            # Where the loop is late, calls wait that it has not been told of.
            late = _now() - looked > LOOK
            calm = 0 if late or self._inside or self._last >= looked else calm + 1

    async def _wait(self, remaining: float | None) -> None:
        self._last = _now()
        self._held += 1
        half = None if remaining is None else max(0.0, remaining / 2)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), half)
        finally:
            self._held -= 1
        raise Draining("the service is stopping; ask another one")

    def _left(self, begun: float, longest: float) -> float:
        """Seconds until the next look. Of callers who come at random, the longest pauses are taken: in them
        nobody is on the way from the core to a handler.
        """
        now = _now()
        if now - begun >= longest:
            return 0.0
        quiet = QUIET * (1 - (now - begun) / longest) - (now - self._last)
        return max(quiet, LOOK if self._inside > self._held else 0.0)


def _now() -> float:
    """Seconds by the clock that `asyncio.sleep` goes by."""
    return asyncio.get_running_loop().time()
