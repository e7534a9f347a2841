"""grpc.health.v1 with Check, Watch and List; the package's own asynchronous servicer lacks List.

It knows names and whether they serve; who decides that is elsewhere.
"""

# ruff: noqa: N802  gRPC fixes the names of the methods

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from serving.rpc.interceptors import Context

Status = health_pb2.HealthCheckResponse
LIVENESS: Final = ""
READINESS: Final = "stratified.v1.SentimentService"


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Liveness is SERVING from the start, until only a new process helps; readiness waits for `set_ready`.
    One instance may stand behind two ports.
    """

    def __init__(self) -> None:
        self._serving = {LIVENESS: True, READINESS: False}
        self._changed = asyncio.Event()
        self._closed = self._given_up = False

    def set_ready(self, ready: bool) -> None:
        """Whether the default model answers; nothing makes a service ready again that is closed or given
        up."""
        if not self._closed and not self._given_up and self._serving[READINESS] != ready:
            self._serving[READINESS] = ready
            self._wake()

    def give_up(self) -> None:
        """Nothing but a new process helps: an orchestrator that looks at liveness starts one."""
        self._serving = dict.fromkeys(self._serving, False)
        self._given_up = True
        self._wake()

    def close(self) -> None:
        """Stopping: everything is NOT_SERVING from now on, and every watcher is told and let go."""
        self._closed = True
        self._serving = dict.fromkeys(self._serving, False)
        self._wake()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The state of one name; NOT_FOUND for a name that does not exist."""
        if request.service not in self._serving:
            known = ", ".join(repr(name) for name in self._serving)
            await context.abort(StatusCode.NOT_FOUND, f"no service {request.service[:80]!r}; ask for {known}")
        return self._response(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state of one name, and each change of it; SERVICE_UNKNOWN for a name that does not exist."""
        last = None
        while True:
            changed, current = self._changed, self._response(request.service)
            if current != last:
                yield current
                last = current
            if self._closed:
                return
            if changed is self._changed:
                await changed.wait()

    async def List(self, request: Any, context: Context) -> Any:
        """Every name and its state."""
        response: Any = health_pb2  # the published stubs are older than List
        return response.HealthListResponse(statuses={name: self._response(name) for name in self._serving})

    def _response(self, name: str) -> health_pb2.HealthCheckResponse:
        if name not in self._serving:
            return Status(status=Status.SERVICE_UNKNOWN)
        return Status(status=Status.SERVING if self._serving[name] else Status.NOT_SERVING)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
