"""One name for all connections of a caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.errors import Draining
from serving.rpc.callers import caller_of, time_left
from tests.serving.certs import issue, trust
from tests.serving.conftest import Running, Start


class Peer:
    """As much of a context as is asked."""

    def __init__(self, peer: str, *identities: bytes) -> None:
        self._peer, self._identities = peer, identities or None

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> Any:
        return self._identities


def name(peer: Peer) -> str:
    context: Any = peer
    return caller_of(context)


def test_ports_do_not_tell_callers_apart_and_certificates_do() -> None:
    assert name(Peer("ipv4:10.0.0.7:1000")) == name(Peer("ipv4:10.0.0.7:2000")) == "10.0.0.7"
    one, two = Peer("ipv4:10.0.0.7:1", b"one.example", b"more"), Peer("ipv4:10.0.0.7:1", b"two.example")
    assert name(one) == "certificate one.example"
    assert name(two) == "certificate two.example"


def watch(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The callers that the service hears of."""
    heard: list[str] = []

    async def listen(*args: object, caller: str, **kwargs: object) -> None:
        heard.append(caller)
        raise Draining("enough")

    for method in ("classify", "classify_batch", "classify_streamed"):
        monkeypatch.setattr(running.app.service, method, listen)
    return heard


async def fails(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_every_method_says_who_calls(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    heard = watch(running, monkeypatch)
    await fails(running.sentiment.Classify(sentiment_pb2.ClassifyRequest(text="a")))
    items = [sentiment_pb2.BatchItem(text="a")]
    await fails(running.sentiment.BatchClassify(sentiment_pb2.BatchClassifyRequest(items=items)))
    stream = running.sentiment.ClassifyStream()
    await stream.write(sentiment_pb2.ClassifyStreamRequest(settings=sentiment_pb2.StreamSettings()))
    await stream.write(sentiment_pb2.ClassifyStreamRequest(item=items[0]))
    await fails(stream.read())
    assert heard == ["127.0.0.1"] * 3


async def test_a_certificate_names_its_caller(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    files, ca = issue(tmp_path, authority), trust(tmp_path, authority)
    running = await start(tls_cert=files.chain, tls_key=files.key, tls_client_ca=ca)
    heard = watch(running, monkeypatch)
    own = issue(tmp_path, authority, "reader.example", stem="own")
    pair = (own.key.read_bytes(), own.chain.read_bytes())
    proof = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *pair)
    async with grpc.aio.secure_channel(running.target, proof) as channel:
        service: Any = sentiment_pb2_grpc.SentimentServiceStub(channel)
        await fails(service.Classify(sentiment_pb2.ClassifyRequest(text="a")))
    assert heard == ["certificate reader.example"]


@pytest.mark.parametrize(("remaining", "later"), [(None, None), (5.0, 3.0)])
def test_what_is_left_is_asked_of_the_wall_clock_once(remaining: float | None, later: float | None) -> None:
    class Waiting:
        asked = 0

        def time_remaining(self) -> float | None:
            self.asked += 1
            return remaining

    now = [100.0]
    context: Any = Waiting()
    left = time_left(context, clock=lambda: now[0])
    assert left() == remaining
    now[0] += 2
    assert left() == later
    assert context.asked == 1
