"""Every meaning has a status, and the details that go with it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from serving import errors
from serving.rpc.status import STATUS, internal_status, pushback, status_code, to_status
from tests.serving.test_errors import descendants

KINDS = list(descendants(errors.ServingError))


def make(kind: type[errors.ServingError], retry_after: float | None = None) -> errors.ServingError:
    if issubclass(kind, errors.InvalidRequest):
        return kind("because", field="text")
    return kind("because", retry_after=retry_after)


def details(status: status_pb2.Status) -> dict[str, object]:
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    )
    found: dict[str, object] = {}
    for packed in status.details:
        for kind in kinds:
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.Refused])
def test_every_meaning_is_in_the_table(kind: type[errors.ServingError]) -> None:
    assert any(base in STATUS for base in kind.__mro__)
    assert (status_code(make(kind)) is grpc.StatusCode.INTERNAL) is (kind is errors.ItemFailed)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.EmptyText, "INVALID_ARGUMENT"),
        (errors.UnknownDomain, "INVALID_ARGUMENT"),
        (errors.ModelNotFound, "NOT_FOUND"),
        (errors.QueueFull, "RESOURCE_EXHAUSTED"),
        (errors.WouldMissDeadline, "DEADLINE_EXCEEDED"),
        (errors.DeadlineMissed, "DEADLINE_EXCEEDED"),
        (errors.Draining, "UNAVAILABLE"),
        (errors.EngineCrashed, "UNAVAILABLE"),
        (errors.ItemFailed, "INTERNAL"),
    ],
)
def test_the_table_is_looked_up_along_the_tree(kind: type[errors.ServingError], code: str) -> None:
    assert status_code(make(kind)).name == code


def test_a_meaning_that_nobody_placed_is_internal() -> None:
    assert status_code(errors.ServingError("?")) is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", KINDS)
def test_every_status_says_reason_and_request(kind: type[errors.ServingError]) -> None:
    status = to_status(make(kind), request_id="r1")
    found = details(status)
    info, request = found["ErrorInfo"], found["RequestInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(request, error_details_pb2.RequestInfo)
    assert (info.reason, request.request_id, status.message) == (kind.reason, "r1", "because")


def test_an_invalid_request_names_the_field_with_its_path() -> None:
    bad = details(to_status(make(errors.EmptyText), request_id="r", path="items[3]."))["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert bad.field_violations[0].field == "items[3].text"


def test_a_refusal_says_when_to_come_back() -> None:
    error = make(errors.QueueFull, retry_after=1.25)
    retry = details(to_status(error, request_id="r"))["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1250
    assert pushback(error) == "1250"


def test_pushback_is_left_out_or_forbids_where_waiting_is_no_cure() -> None:
    assert pushback(make(errors.Draining)) is None
    assert pushback(make(errors.ModelNotLoaded)) == "-1"


def test_a_bug_is_told_by_nothing_but_its_id() -> None:
    status = internal_status("r7")
    assert status.code == 13
    assert "r7" in status.message
    assert set(details(status)) == {"ErrorInfo", "RequestInfo"}
