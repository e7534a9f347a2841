"""`stratified.v1.AdminService`: convert, await, convert.

Who may call is decided before (`rpc/guard.py`), what a change means behind (`serving.fleet`).
"""

# ruff: noqa: N802  gRPC fixes the names of the methods

from __future__ import annotations

from typing import TYPE_CHECKING

from protos.stratified.v1 import admin_pb2, admin_pb2_grpc
from serving.errors import InvalidRequest
from serving.fleet import Fleet
from serving.logs import set_level
from serving.rpc.converters import duration

if TYPE_CHECKING:
    from serving.rpc.interceptors import Context

LEVEL = "LOG_LEVEL_"


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """The handlers; `log_level` is the level at the start."""

    def __init__(self, fleet: Fleet, *, log_level: str) -> None:
        self._fleet, self._log_level = fleet, log_level

    async def LoadModel(
        self, request: admin_pb2.LoadModelRequest, context: Context
    ) -> admin_pb2.LoadModelResponse:
        """Load a variant as the store has it now."""
        card, before = await self._fleet.load(_named(request.model))
        return admin_pb2.LoadModelResponse(
            name=card.version.name,
            version=card.version.version,
            sha256=card.version.sha256,
            previous_sha256=before,
            load_duration=duration(card.load_seconds),
        )

    async def UnloadModel(
        self, request: admin_pb2.UnloadModelRequest, context: Context
    ) -> admin_pb2.UnloadModelResponse:
        """Let a variant go."""
        await self._fleet.unload(_named(request.model))
        return admin_pb2.UnloadModelResponse()

    async def SetDefaultModel(
        self, request: admin_pb2.SetDefaultModelRequest, context: Context
    ) -> admin_pb2.SetDefaultModelResponse:
        """Let a variant answer by default."""
        before = await self._fleet.set_default(_named(request.model))
        return admin_pb2.SetDefaultModelResponse(previous_model=before)

    async def SetLogLevel(
        self, request: admin_pb2.SetLogLevelRequest, context: Context
    ) -> admin_pb2.SetLogLevelResponse:
        """Log more, or less."""
        levels = admin_pb2.LogLevel
        if request.level == 0 or request.level not in levels.values():
            names = ", ".join(levels.keys()[1:])
            raise InvalidRequest(f"level {request.level} is none; choose one of: {names}", field="level")
        before, self._log_level = self._log_level, levels.Name(request.level).removeprefix(LEVEL)
        set_level(self._log_level)
        return admin_pb2.SetLogLevelResponse(previous_level=levels.Value(LEVEL + before))


def _named(model: str) -> str:
    if not model:
        raise InvalidRequest("model is empty; name one of ListModels", field="model")
    return model
