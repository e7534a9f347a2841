"""What crosses every call, once: its id, its numbers, and the translation of errors into statuses.

It knows meanings (`serving.errors`) and metrics, and no rule of any method. An exception that is no
`ServingError` is a bug: its text stays in the log, and the caller gets INTERNAL with an id to report.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from serving.errors import InvalidRequest, ServingError
from serving.logs import describe
from serving.metrics import Metrics
from serving.rpc.door import Door
from serving.rpc.status import code_number, internal_status, pushback, status_code, to_status
from serving.stages import NoTracing, Stages, Tracing

REQUEST_ID = "x-request-id"
DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"
ACCEPTABLE_ID = re.compile(r"[\w.:-]{1,64}")
OPEN = ("grpc.health.v1.Health",)  # probes bring no token
CODES = {code_number(code): code for code in grpc.StatusCode}

log = structlog.get_logger(__name__)

Guard = Callable[[Mapping[str, Any]], None]

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]


def request_id() -> str:
    """The id of the call that is being handled; "" outside of one."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def call_kind(request_streaming: bool, response_streaming: bool) -> str:
    """The value of the label `grpc_type`."""
    names = ("unary", "server_stream", "client_stream", "bidi_stream")
    return names[2 * bool(request_streaming) + bool(response_streaming)]


@dataclass(frozen=True, slots=True)
class Method:
    """A method as the metrics name it."""

    kind: str
    service: str
    name: str

    @classmethod
    def of(cls, path: str, handler: Handler) -> Method:
        """From "/package.Service/Method"."""
        service, _, name = path.removeprefix("/").rpartition("/")
        return cls(call_kind(handler.request_streaming, handler.response_streaming), service, name)

    @property
    def labels(self) -> tuple[str, str, str]:
        """In the order of the metrics' labels."""
        return self.kind, self.service, self.name


@dataclass(slots=True)
class Ending:
    """How a call ended; kept beside the context, which forgets a code set after the caller had gone."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def settle(self, code: grpc.StatusCode) -> None:
        """Take this code unless one is known."""
        if self.code is grpc.StatusCode.UNKNOWN:
            self.code = code


class EdgeInterceptor(grpc.aio.ServerInterceptor):
    """The only interceptor: id outermost, then the span, the numbers, the errors, who may, then the handler.

    `guard` gets the metadata of each call, and raises a `ServingError` for one that may not be made;
    health is open to all, and leaves no span. Through `door` they come while the server stops.
    """

    def __init__(
        self,
        metrics: Metrics,
        stages: Stages,
        *,
        guard: Guard | None = None,
        tracing: Tracing | None = None,
        door: Door | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._stages, self._guard, self._clock = metrics, stages, guard, clock
        self._tracing, self._untraced = tracing or NoTracing(), NoTracing()
        self._door = door or Door()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of a call; a method that does not exist stays UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        metadata = dict(handler_call_details.invocation_metadata or {})
        return self._wrap(handler, Method.of(str(handler_call_details.method), handler), metadata)

    def _wrap(self, handler: Any, method: Method, metadata: dict[str, Any]) -> Any:
        decode, encode = handler.request_deserializer or bytes, handler.response_serializer or bytes
        streaming_in, streaming_out = bool(handler.request_streaming), bool(handler.response_streaming)
        name = f"{'stream' if streaming_in else 'unary'}_{'stream' if streaming_out else 'unary'}"
        behaviour = getattr(handler, name)

        def requests(raw: Any) -> Any:
            return self._decoded(raw, decode, method) if streaming_in else self._decode(raw, decode, method)

        async def answer_one(raw: Any, context: Context) -> Any:
            async with self._around(method, metadata, context):
                return self._encode(await behaviour(requests(raw), context), encode, method)

        async def answer_many(raw: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, metadata, context):
                async for response in behaviour(requests(raw), context):
                    yield self._encode(response, encode, method)

        wrapped = answer_many if streaming_out else answer_one
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(wrapped, request_deserializer=None, response_serializer=None)

    def _encode(self, response: Any, encode: Callable[[Any], bytes], method: Method) -> bytes:
        began = self._clock()
        message = encode(response)
        self._metrics.rpc_sent.labels(*method.labels).inc()
        if method.service not in OPEN:
            self._stages.took("encode", began, self._clock(), bytes=len(message))
        return message

    def _decode(self, raw: bytes, decode: Callable[[bytes], Any], method: Method) -> Any:
        self._metrics.rpc_received.labels(*method.labels).inc()
        began = self._clock()
        try:
            message = decode(raw)
        except DecodeError:
            text = f"{len(raw)} bytes are no request of {method.service}/{method.name}; see the .proto files"
            raise InvalidRequest(text, field="") from None
        if method.service not in OPEN:
            self._stages.took("decode", began, self._clock(), bytes=len(raw))
        return message

    async def _decoded(
        self, raw: AsyncIterator[bytes], decode: Callable[[bytes], Any], method: Method
    ) -> AsyncIterator[Any]:
        async for message in raw:
            yield self._decode(message, decode, method)

    @asynccontextmanager
    async def _around(
        self, method: Method, metadata: dict[str, Any], context: Context
    ) -> AsyncIterator[None]:
        given = str(metadata.get(REQUEST_ID, ""))
        identity = given if ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex
        context.set_trailing_metadata(((REQUEST_ID, identity),))
        with structlog.contextvars.bound_contextvars(
            request_id=identity, rpc=f"{method.service}/{method.name}"
        ):
            ending, watched = Ending(), method.service not in OPEN
            tracing = self._tracing if watched else self._untraced
            with tracing.call(method.service, method.name, metadata) as span:
                span.note(request_id=identity)
                try:
                    async with (
                        self._measured(method, context, ending),
                        self._translated(context, identity, ending),
                        self._door.passage(context.time_remaining()) if watched else nullcontext(),
                    ):
                        if self._guard is not None and watched:
                            self._guard(metadata)
                        yield
                finally:
                    if ending.code is not grpc.StatusCode.OK:
                        span.fail(ending.code.name)

    @asynccontextmanager
    async def _measured(self, method: Method, context: Context, ending: Ending) -> AsyncIterator[None]:
        started = self._clock()
        self._metrics.rpc_started.labels(*method.labels).inc()
        try:
            yield
            ending.settle(_code(context))
        except grpc.aio.AbortError:
            ending.settle(_code(context))
            raise
        except (asyncio.CancelledError, GeneratorExit):
            remaining: Any = context.time_remaining()  # None without a deadline, whatever the stubs say
            late = remaining is not None and remaining <= 0
            ending.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = self._clock() - started
            self._metrics.rpc_handled.labels(*method.labels, ending.code.name).inc()
            self._metrics.rpc_seconds.labels(*method.labels).observe(seconds)
            log.debug("rpc", code=ending.code.name, seconds=round(seconds, 6))

    @asynccontextmanager
    async def _translated(self, context: Context, identity: str, ending: Ending) -> AsyncIterator[None]:
        try:
            yield
        except ServingError as error:
            wait = pushback(error)
            trailers = [] if wait is None else [(PUSHBACK, wait)]
            ending.code = status_code(error)
            log.debug("rpc refused", reason=error.reason)
            await _abort(context, ending.code, to_status(error, request_id=identity), identity, trailers)
        except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            ending.code = grpc.StatusCode.INTERNAL
            log.error("bug", **describe(error))
            log.debug("bug's own words", error=str(error))
            await _abort(context, ending.code, internal_status(identity), identity, [])


async def _abort(
    context: Context,
    code: grpc.StatusCode,
    status: status_pb2.Status,
    identity: str,
    trailers: list[tuple[str, str]],
) -> None:
    metadata = ((REQUEST_ID, identity), (DETAILS, status.SerializeToString()), *trailers)
    await context.abort(code, status.message, trailing_metadata=metadata)


def _code(context: Context) -> grpc.StatusCode:
    """grpc.aio gives the code as a number, or as a member when a handler set one; 0 when nobody did."""
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else CODES.get(code or 0, grpc.StatusCode.UNKNOWN)
