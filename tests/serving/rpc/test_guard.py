"""The operator's port: TLS and certificates of its own, and never open to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from protos.stratified.v1 import admin_pb2, admin_pb2_grpc
from serving.errors import BadSettings
from serving.rpc.guard import admin_access
from serving.rpc.options import SecurityFiles
from tests.serving.certs import PAST, Files, issue, trust
from tests.serving.conftest import Start
from tests.serving.rpc.test_credentials import trusting

Level = admin_pb2.SetLogLevelRequest(level=admin_pb2.LOG_LEVEL_DEBUG)


async def set_level(port: int, proof: grpc.ChannelCredentials | None, token: str = "") -> str:
    target, fresh = f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.secure_channel(target, proof, options=fresh)
        if proof
        else grpc.aio.insecure_channel(target, options=fresh)
    )
    async with channel:
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            await admin.SetLogLevel(Level, timeout=5, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


async def test_operators_come_with_tls_a_certificate_and_a_token(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    ours = issue(tmp_path, authority)
    operator, stranger = issue(tmp_path, authority, "op", stem="op"), issue(tmp_path, trustme.CA(), stem="x")
    tokens = tmp_path / "tokens"
    tokens.write_text("an-operators-token-0123456789\n")
    ca = trust(tmp_path, authority)
    running = await start(
        admin_port=0,
        admin_tls_cert=ours.chain,
        admin_tls_key=ours.key,
        admin_tls_client_ca=ca,
        admin_token_file=tokens,
    )
    port, token = running.ports.admin, "an-operators-token-0123456789"
    assert await set_level(port, trusting(ca, operator), token) == "OK"
    assert await set_level(port, trusting(ca, operator)) == "UNAUTHENTICATED"
    assert await set_level(port, trusting(ca, stranger), token) == "UNAVAILABLE"
    assert await set_level(port, trusting(ca), token) == "UNAVAILABLE"
    assert await set_level(port, None, token) == "UNAVAILABLE"
    assert running.sample("stratified_certificate_expiry_timestamp_seconds", port="admin") > 0


def access(files: SecurityFiles, host: str = "127.0.0.1") -> object:
    return admin_access(files, host=host, clock=lambda: 0.0)


def test_a_port_that_others_reach_asks_for_a_token_or_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    ours: Files = issue(tmp_path, authority)
    ca = trust(tmp_path, authority)
    tls = {"cert": ours.chain, "key": ours.key, "prefix": "--admin-"}
    for files in (SecurityFiles(prefix="--admin-"), SecurityFiles(**tls)):  # type: ignore[arg-type]  # by name
        access(files)
        with pytest.raises(
            BadSettings, match=r"--admin-host '0\.0\.0\.0'.*--admin-token-file or --admin-tls"
        ):
            access(files, "0.0.0.0")
    access(SecurityFiles(**tls, client_ca=ca), "0.0.0.0")  # type: ignore[arg-type]  # by name


def test_messages_name_the_flags_of_this_port(tmp_path: Path) -> None:
    authority = trustme.CA()
    old = issue(tmp_path, authority, stem="old", begins=PAST[0], ends=PAST[1])
    missing = tmp_path / "missing"
    for files, words in (
        (
            SecurityFiles(cert=old.chain, prefix="--admin-"),
            "--admin-tls-cert is given without --admin-tls-key",
        ),
        (SecurityFiles(old.chain, old.key, prefix="--admin-"), "--admin-tls-cert .* expired on 2020"),
        (SecurityFiles(client_ca=missing, prefix="--admin-"), "--admin-tls-client-ca is given without TLS"),
        (SecurityFiles(tokens=missing, prefix="--admin-"), "--admin-token-file"),
    ):
        with pytest.raises(BadSettings, match=words):
            access(files)
