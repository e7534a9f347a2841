"""A port with TLS, clients' certificates, and tokens: renewed while it serves, one line when they are bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import trustme
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.calls import failure_of
from serving.errors import BadSettings
from serving.rpc.credentials import build_access
from serving.rpc.options import SecurityFiles
from tests.serving.certs import PAST, Files, issue, trust
from tests.serving.conftest import Running, Start, counted

TOKEN, OTHER = "token-0123456789abcdef", "other-0123456789abcdef"
Request = sentiment_pb2.ClassifyRequest


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def stub(target: str, proof: grpc.ChannelCredentials | None) -> AsyncIterator[Any]:
    """A new connection each time, in clear without a proof."""
    fresh = [("grpc.use_local_subchannel_pool", 1)]
    if proof is None:
        channel = grpc.aio.insecure_channel(target, options=fresh)
    else:
        channel = grpc.aio.secure_channel(target, proof, options=fresh)
    async with channel:
        yield channel


def trusting(ca: Path | None, own: Files | None = None) -> grpc.ChannelCredentials | None:
    if ca is None:
        return None
    pair = (own.key.read_bytes(), own.chain.read_bytes()) if own else ()
    return grpc.ssl_channel_credentials(ca.read_bytes(), *pair)


async def classify(target: str, ca: Path | None, own: Files | None = None, *, token: str = "") -> str:
    """The label, or the status."""
    async with stub(target, trusting(ca, own)) as channel:
        service: Any = sentiment_pb2_grpc.SentimentServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            reply = await service.Classify(Request(text="good"), timeout=5, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return str(reply.result.label)


async def healthy(target: str) -> bool:
    async with stub(target, None) as channel:
        service: Any = health_pb2_grpc.HealthStub(channel)
        reply = await service.Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


LABELS = {"negative", "neutral", "positive"}


async def test_tls_answers_those_who_trust_it_and_nobody_in_clear(
    start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    files, ca = issue(tmp_path, authority), trust(tmp_path, authority)
    running = await start(tls_cert=files.chain, tls_key=files.key)
    assert await classify(running.target, ca) in LABELS
    assert await classify(running.target, None) == "UNAVAILABLE"
    stranger = trust(tmp_path, trustme.CA(), stem="stranger")
    assert await classify(running.target, stranger) == "UNAVAILABLE"
    assert await healthy(f"127.0.0.1:{running.ports.probe}"), "the probe port stays plaintext"
    ends = running.sample("stratified_certificate_expiry_timestamp_seconds", port="service")
    assert ends > 4e9


async def test_mutual_tls_lets_in_only_clients_of_its_authority(
    start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    files, ca = issue(tmp_path, authority), trust(tmp_path, authority)
    clients = trustme.CA()
    running = await start(
        tls_cert=files.chain, tls_key=files.key, tls_client_ca=trust(tmp_path, clients, stem="clients")
    )
    mine = issue(tmp_path, clients, "reader.example", stem="mine")
    assert await classify(running.target, ca, mine) in LABELS
    assert await classify(running.target, ca) == "UNAVAILABLE"
    theirs = issue(tmp_path, trustme.CA(), "reader.example", stem="theirs")
    assert await classify(running.target, ca, theirs) == "UNAVAILABLE"
    late = issue(tmp_path, clients, "reader.example", stem="late", begins=PAST[0], ends=PAST[1])
    assert await classify(running.target, ca, late) == "UNAVAILABLE"


async def hello(request: bytes, context: object) -> bytes:
    return b"hello"


class Hello(grpc.GenericRpcHandler):
    def service(self, details: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(hello)


async def greeted(target: str, ca: Path) -> bool:
    async with stub(target, trusting(ca)) as channel:
        try:
            return bool(await channel.unary_unary("/a/b")(b"", timeout=5) == b"hello")
        except grpc.aio.AioRpcError:
            return False


async def test_a_renewed_certificate_serves_the_next_connection_and_a_bad_one_never(
    tmp_path: Path, authority: trustme.CA
) -> None:
    files, old = issue(tmp_path, authority), trust(tmp_path, authority, stem="old")
    ends: list[float] = []
    access = build_access(
        SecurityFiles(cert=files.chain, key=files.key),
        host="127.0.0.1",
        clock=lambda: 0.0,
        interval=0.0,
        on_identity=lambda identity: ends.append(identity.expires),
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Hello(),))
    assert access.credentials is not None
    target = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', access.credentials)}"
    await server.start()
    successor = trustme.CA()
    new = trust(tmp_path, successor, stem="new")
    async with stub(target, trusting(old)) as lasting:
        assert await lasting.unary_unary("/a/b")(b"") == b"hello"
        issue(tmp_path, successor)
        assert (await greeted(target, new), await greeted(target, old)) == (True, False)
        assert await lasting.unary_unary("/a/b")(b"") == b"hello", "an open connection goes on"
    with structlog.testing.capture_logs() as logs:
        files.key.write_bytes(b"half of a pair")
        assert await greeted(target, new)
        issue(tmp_path, successor, begins=PAST[0], ends=PAST[1])
        assert await greeted(target, new)
        files.chain.unlink()
        assert await greeted(target, new)
    assert [entry["log_level"] for entry in logs] == ["error"] * 3
    assert len(ends) == 2
    await server.stop(0)


async def refused(running: Running, header: str | None) -> tuple[str, str, str]:
    """Status, reason and message."""
    metadata = () if header is None else (("authorization", header),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.sentiment.Classify(Request(text="good"), metadata=metadata)
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    failure = failure_of(status_pb2.Status.FromString(details))
    return caught.value.code().name, failure.reason, failure.message


async def test_callers_without_a_valid_token_are_told_so_and_health_is_open(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n{OTHER}\n")
    running = await start(token_file=path)
    for token in (TOKEN, OTHER):
        assert await classify(running.target, None, token=token) in LABELS
    for header in (None, "Bearer wrong-0123456789abcdef", f"Basic {TOKEN}"):
        code, reason, message = await refused(running, header)
        assert (code, reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert TOKEN not in message
    assert await healthy(running.target)
    assert await healthy(f"127.0.0.1:{running.ports.probe}")
    labels = {
        "grpc_type": "unary",
        "grpc_service": "stratified.v1.SentimentService",
        "grpc_method": "Classify",
    }
    await counted(running, 3, **labels, grpc_code="UNAUTHENTICATED")
    assert running.sample("grpc_server_started_total", **labels) == 5


async def test_a_stream_without_a_token_is_refused_before_anything_is_read(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    running = await start(token_file=path)
    call = running.sentiment.ClassifyStream()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_in_clear_are_warned_of_where_others_could_read_them(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    for host, warnings in (("127.0.0.1", 0), ("0.0.0.0", 1)):
        with structlog.testing.capture_logs() as logs:
            build_access(SecurityFiles(tokens=path), host=host, clock=lambda: 0.0)
        assert len(logs) == warnings


def test_nothing_is_asked_where_nothing_is_set() -> None:
    access = build_access(SecurityFiles(), host="0.0.0.0", clock=lambda: 0.0)
    assert (access.credentials, access.guard) == (None, None)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"cert"}, "--tls-cert is given without --tls-key; give both, or neither"),
        ({"key"}, "--tls-key is given without --tls-cert; give both, or neither"),
        ({"client_ca"}, "--tls-client-ca is given without TLS; give --tls-cert and --tls-key too"),
    ],
)
def test_half_a_set_is_one_line(given: set[str], line: str) -> None:
    files = SecurityFiles(**dict.fromkeys(given, Path("somewhere")))  # type: ignore[arg-type]  # files by name
    with pytest.raises(BadSettings) as caught:
        build_access(files, host="127.0.0.1", clock=lambda: 0.0)
    assert str(caught.value) == line


def test_a_bad_authority_of_clients_is_named(tmp_path: Path, authority: trustme.CA) -> None:
    files, junk = issue(tmp_path, authority), tmp_path / "junk"
    junk.write_text("nothing")
    with pytest.raises(BadSettings, match=r"--tls-client-ca '.*junk' holds no certificate"):
        build_access(SecurityFiles(files.chain, files.key, junk), host="127.0.0.1", clock=lambda: 0.0)
