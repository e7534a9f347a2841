"""The door that calls come through, and how it is closed without hitting anybody.

When a gRPC server stops, the core cancels the calls that it has read and not yet handed over, as many as came
in one turn of a busy event loop. Their callers see CANCELLED, which no client tries again. Who waits for an
answer sends nothing more: so the calls of the last moment are held until nobody comes, then the server stops,
and only then, when they can no longer come back through this door, they are told to ask another one.
"""

from __future__ import annotations

import asyncio
import contextlib

import grpc

from serving.errors import Draining

QUIET = 0.1
"""Seconds without a new call after which nobody is taken to be on the way; with time, less is asked for."""
LONGEST = 2.0
"""Seconds that callers who never pause can keep the door from closing."""


class Door:
    """Open until `close`; belongs to one server and one event loop."""

    def __init__(self) -> None:
        self._closing, self._closed = False, asyncio.Event()
        self._last = 0.0

    async def enter(self, remaining: float | None) -> None:
        """Let a call in that has `remaining` seconds left (None: no deadline).

        Raises `Draining` once the door is closed, and after half of the time that is left, so that a caller
        in a hurry can still ask another one.
        """
        if not self._closing:
            return
        self._last = _now()
        half = None if remaining is None else max(0.0, remaining / 2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), half)
        raise Draining("the service is stopping; ask another one")

    async def close(self, server: grpc.aio.Server, grace: float) -> None:
        """Stop `server`; returns when all that was let in is answered, within `grace` seconds."""
        begun = self._last = _now()
        self._closing = True
        longest = min(LONGEST, grace / 2)
        while (wait := self._left(begun, longest)) > 0:  # noqa: ASYNC110  for what does not happen
            await asyncio.sleep(wait)
        stopping = asyncio.create_task(server.stop(max(0.0, grace - (_now() - begun))))
        await asyncio.sleep(0)  # its first step takes no further call, and says so to every connection
        self._closed.set()
        await stopping

    def _left(self, begun: float, longest: float) -> float:
        """Seconds of quiet that are missing. Of callers who come at random, the longest pauses are taken:
        in them nobody is on the way from the core to a handler.
        """
        now = _now()
        asked = QUIET * (1 - (now - begun) / longest) if longest else 0.0
        return asked - (now - self._last)


def _now() -> float:
    """Seconds by the clock that `asyncio.sleep` goes by."""
    return asyncio.get_running_loop().time()
