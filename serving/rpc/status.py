"""The one table from meanings to gRPC statuses, and the details of each; looked up along the MRO."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from serving import errors

ERROR_DOMAIN = "stratified-sentiment"

STATUS: dict[type[errors.ServingError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.NotPossible: grpc.StatusCode.FAILED_PRECONDITION,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.WouldMissDeadline: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DeadlineMissed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ItemFailed: grpc.StatusCode.INTERNAL,
}


def status_code(error: errors.ServingError) -> grpc.StatusCode:
    """The status of the nearest class in the table; INTERNAL for one that nobody placed, which a test
    forbids.
    """
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)


def pushback(error: errors.ServingError) -> str | None:
    """The value of the trailer `grpc-retry-pushback-ms`: when to come back; -1: never; None: as usual."""
    if isinstance(error, errors.ModelNotLoaded):
        return "-1"  # coming back changes nothing until an operator acts
    return None if error.retry_after is None else str(round(error.retry_after * 1000))


def to_status(error: errors.ServingError, *, request_id: str, path: str = "") -> status_pb2.Status:
    """The error as `google.rpc.Status`, with ErrorInfo, RequestInfo and, where they apply, BadRequest and
    RetryInfo.

    `path` goes before the name of the field at fault: "items[3]." for the fourth item of a batch.
    """
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=path + error.field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_number(status_code(error)), message=error.message, details=_packed(details)
    )


def internal_status(request_id: str) -> status_pb2.Status:
    """What a caller is told of a bug: nothing but the id to report."""
    text = f"internal error; report request id {request_id}"
    details: list[message.Message] = [
        error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    return status_pb2.Status(
        code=code_number(grpc.StatusCode.INTERNAL), message=text, details=_packed(details)
    )


def code_number(code: grpc.StatusCode) -> int:
    """The number of a status on the wire."""
    number: int = code.value[0]
    return number


def _packed(details: list[message.Message]) -> list[any_pb2.Any]:
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return packed
