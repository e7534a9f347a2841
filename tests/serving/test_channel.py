"""Clients with TLS, certificates and tokens, from Python and from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme

from serving.channel import Security, credentials, token_source
from serving.classify import BAD_INPUT, GOOD, REFUSED, main
from serving.client import AsyncClient, CallFailed, Client
from serving.errors import BadSettings
from serving.types import Item
from tests.serving.certs import PAST, issue, trust
from tests.serving.conftest import Running, Start

TOKEN = "token-0123456789abcdef"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secured(start: Start, tmp_path: Path, authority: trustme.CA) -> tuple[Running, Security]:
    """A server with mutual TLS and tokens, and what its clients need."""
    server, client = issue(tmp_path, authority), issue(tmp_path, authority, "me.example", stem="client")
    ca, tokens = trust(tmp_path, authority), tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    running = await start(tls_cert=server.chain, tls_key=server.key, tls_client_ca=ca, token_file=tokens)
    return running, Security(tls=True, ca=ca, cert=client.chain, key=client.key, token_file=tokens)


async def test_the_blocking_client(secured: tuple[Running, Security]) -> None:
    running, security = secured

    def use() -> None:
        with Client(running.target, security=security) as client:
            assert client.classify("good").label
            assert len(client.classify_batch([Item("good"), Item("bad")])) == 2
            assert len(list(client.classify_stream([Item("good", id="1")]))) == 1
            assert client.model_info()[0].labels
            assert client.list_models()[1]
            assert client.health()

    await asyncio.to_thread(use)


async def test_the_asynchronous_client(secured: tuple[Running, Security]) -> None:
    running, security = secured
    async with AsyncClient(running.target, security=security) as client:
        assert (await client.classify("good")).label
        assert len(await client.classify_batch([Item("good")])) == 1

        async def items() -> AsyncIterator[Item]:
            yield Item("good", id="1")

        assert [identity async for identity, _ in client.classify_stream(items())] == ["1"]
        assert (await client.model_info())[0].labels


async def test_a_name_that_the_certificate_does_not_have_can_be_replaced(
    start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    files, ca = issue(tmp_path, authority, "sentiment.example"), trust(tmp_path, authority)
    running = await start(tls_cert=files.chain, tls_key=files.key)

    def label(name: str) -> str:
        security = Security(tls=True, ca=ca, server_name=name)
        with Client(running.target, security=security, deadline=5, attempts=1) as client:
            return client.classify("good").label

    assert await asyncio.to_thread(label, "sentiment.example")
    with pytest.raises(CallFailed) as caught:
        await asyncio.to_thread(label, "")
    assert caught.value.failure.code is grpc.StatusCode.UNAVAILABLE


async def test_the_command_line(
    secured: tuple[Running, Security], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, s = secured
    flags = f"--target {running.target} --tls --ca {s.ca} --cert {s.cert} --key {s.key}".split()
    assert await asyncio.to_thread(main, ["health", *flags]) == GOOD
    assert await asyncio.to_thread(main, ["good", *flags]) == REFUSED
    assert "UNAUTHENTICATED: this server wants a token" in capsys.readouterr().err
    assert await asyncio.to_thread(main, ["good", *flags, "--token-file", str(s.token_file)]) == GOOD
    monkeypatch.setenv("STRATIFIED_TOKEN_FILE", str(s.token_file))
    assert await asyncio.to_thread(main, ["good", *flags]) == GOOD
    capsys.readouterr()
    assert main(["good", "--ca", str(s.ca)]) == BAD_INPUT
    assert main(["good", "--tls", "--ca", "/nowhere.pem"]) == BAD_INPUT
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "stratified-classify: --ca is given without --tls; add --tls"
    assert "--ca '/nowhere.pem': No such file or directory" in lines[1]
    assert len(lines) == 2


def test_half_an_identity_and_an_expired_one_are_one_line(tmp_path: Path, authority: trustme.CA) -> None:
    late = issue(tmp_path, authority, "me.example", begins=PAST[0], ends=PAST[1])
    with pytest.raises(BadSettings, match="--cert is given without --key"):
        credentials(Security(tls=True, cert=late.chain))
    with pytest.raises(BadSettings, match="--key is given without --cert"):
        credentials(Security(tls=True, key=late.key))
    with pytest.raises(BadSettings, match=r"--cert '.*' expired on 2020-01-01 00:00 UTC; renew"):
        credentials(Security(tls=True, cert=late.chain, key=late.key))
    assert credentials(Security()) is None
    assert credentials(Security(tls=True)) is not None


def test_a_token_does_not_leave_the_machine_in_clear(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    security = Security(token_file=path)
    assert token_source(Security(), "example:1") is None
    assert token_source(security, "127.0.0.1:1") is not None
    assert token_source(Security(tls=True, token_file=path), "example:1") is not None
    with pytest.raises(BadSettings, match="would travel in clear to example:1; add --tls"):
        token_source(security, "example:1")
