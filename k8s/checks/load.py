"""A short, bounded, mixed load on a service of this machine: good, bad, shed, late and cancelled calls.

It knows the client and what makes each metric move; it does not measure anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc

from k8s.checks.engine import CheckError
from protos.stratified.v1 import sentiment_pb2, sentiment_pb2_grpc
from serving.calls import CallFailed
from serving.client import Client
from serving.types import Item

TEXTS = (
    "the film was good and the ending great",
    "a bad product , the battery is broken",
    "it arrived on tuesday",
    "the story drags but the actor is wonderful and the scene was worth it",
)
CROWD = 128


def _items(count: int, words: int = 1) -> Iterator[Item]:
    """Texts in turn; a `words` above 1 makes them long."""
    for number in range(count):
        domain = ("imdb", "", "unknown")[number % 3]
        yield Item(" ".join([TEXTS[number % len(TEXTS)]] * words), domain, str(number))


def _late_and_cancelled(stub: sentiment_pb2_grpc.SentimentServiceStub) -> None:
    """Two crowds of calls that fill the queue: one with hardly any time, one that nobody waits for."""
    request = sentiment_pb2.ClassifyRequest(text=" ".join([TEXTS[0]] * 20))
    late = [stub.Classify.future(request, timeout=0.02) for _ in range(CROWD)]
    left = [stub.Classify.future(request, timeout=10) for _ in range(CROWD)]
    time.sleep(0.02)
    for call in left:
        call.cancel()
    for call in late:
        with suppress(grpc.RpcError, grpc.FutureCancelledError):
            call.result()


def wait_until_ready(target: str, *, seconds: float, alive: Callable[[], None]) -> None:
    """Asks twice a second whether the service is ready. Raises CheckError after `seconds`, or what `alive`
    raises when it has ended.
    """
    end = time.monotonic() + seconds
    with Client(target, attempts=1) as client:
        while time.monotonic() < end:
            alive()
            with suppress(CallFailed):
                if client.health():
                    return
            time.sleep(0.5)
    raise CheckError(f"{target} was not ready within {seconds:.0f} s")


def mixed(target: str, *, seconds: float) -> int:
    """Loads the service at `target` for `seconds`; the number of rounds. Single calls fail on purpose."""
    rounds = 0
    end = time.monotonic() + seconds
    with Client(target, attempts=1) as client, grpc.insecure_channel(target) as channel:
        stub = sentiment_pb2_grpc.SentimentServiceStub(channel)
        while time.monotonic() < end:
            rounds += 1
            for item in _items(8):
                client.classify(item.text, domain=item.domain)
            client.classify_batch([*_items(16), Item("", "", "empty")])
            list(client.classify_stream(_items(12)))
            for text in ("", "x" * 100_000):
                with suppress(CallFailed):
                    client.classify(text)
            with suppress(CallFailed):
                client.classify_batch(list(_items(CROWD, words=20)))
            _late_and_cancelled(stub)
            time.sleep(0.3)
    return rounds
