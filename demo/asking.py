"""What the page asks of the service, and what it says when there is no answer.

It is the page's only way to the service, through `serving.client`. A connection that failed is opened anew by
the next question, so that a service that was restarted answers at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from serving.client import Answer, CallFailed, Client, Failure
from serving.types import Item, ModelCard, ModelState, Options

SHOWN = Options(explain=True, timings=True)
DEADLINE = 20.0  # seconds of one question
IN_FLIGHT = 8  # variants asked at the same time

Connect = Callable[[], Client]


@dataclass(frozen=True, slots=True)
class State:
    """What the service can do now; `problem` says in a sentence why it can do nothing."""

    ready: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()
    default: str = ""
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    problem: str = ""

    @property
    def first(self) -> tuple[str, ...]:
        """What a newcomer should ask: the default, and beside one without strata another that has them."""
        told = self.ready if self.default not in self.ready else (self.default, *self.ready)
        known = [name for name in told[:1] if name in self.cards]
        if known and not self.cards[known[0]].strata:
            known += [name for name in self.ready if name in self.cards and self.cards[name].strata][:1]
        return tuple(known)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the default model."""
        card = self.cards.get(self.default)
        return tuple(domain.name for domain in card.domains) if card else ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What one variant said about a text, and how long the page waited for it, in seconds."""

    model: str
    answer: Answer
    seconds: float


class Asker:
    """Safe to share between threads; `target` is host:port."""

    def __init__(self, target: str, *, connect: Connect | None = None) -> None:
        self.target = target
        self._connect = connect or (lambda: Client(target, deadline=DEADLINE, attempts=2))
        self._lock = threading.Lock()
        self._client: Client | None = None

    def state(self) -> State:
        """What is loaded, and what the default model knows."""
        try:
            models, default = self._reach().list_models()
            ready = tuple(model.name for model in models if model.state is ModelState.READY)
            cards = {name: self._reach().model_info(name)[0] for name in ready}
        except CallFailed as error:
            self._forget(error.failure)
            return State(problem=self.explain(error.failure))
        loading = tuple(model.name for model in models if model.state is ModelState.LOADING)
        problem = "" if ready else "The service is up and loads its model; this takes some seconds."
        return State(ready, loading, default, cards, problem)

    def classify(self, text: str, *, domain: str, models: Sequence[str]) -> list[Reply]:
        """Ask every variant of `models` about one text, side by side; replies in their order."""
        if not models:
            return []
        with ThreadPoolExecutor(max_workers=min(IN_FLIGHT, len(models))) as pool:
            return list(pool.map(lambda model: self._one(text, domain, model), models))

    def explained(self, texts: Sequence[str], model: str) -> list[tuple[str, Answer]]:
        """Many texts with the strata of their tokens; none when the service does not answer."""
        items = [Item(text) for text in texts]
        try:
            answers = self._reach().classify_batch(items, model=model, options=Options(explain=True))
        except CallFailed as error:
            self._forget(error.failure)
            return []
        return list(zip(texts, answers, strict=True))

    def stream(self, items: Iterable[Item], model: str) -> Iterator[tuple[str, Answer]]:
        """Any number of texts, in order; raises `CallFailed`."""
        try:
            yield from self._reach().classify_stream(items, model=model)
        except CallFailed as error:
            self._forget(error.failure)
            raise

    def explain(self, failure: Failure) -> str:
        """A failure as a sentence for the person in front of the page."""
        if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
            return (
                f"No service answers at {self.target}. Start it with `make serve`; this page goes on by "
                "itself when it answers."
            )
        if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "The service is busy. Try again in a moment."
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "The service took too long. Try again, or with fewer variants at once."
        request = f" (request {failure.request_id})" if failure.request_id else ""
        return f"{failure.message or failure.code.name}{request}"

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _one(self, text: str, domain: str, model: str) -> Reply:
        begun = time.perf_counter()
        try:
            answer: Answer = self._reach().classify(text, domain=domain, model=model, options=SHOWN)
        except CallFailed as error:
            self._forget(error.failure)
            answer = error.failure
        return Reply(model, answer, time.perf_counter() - begun)

    def _reach(self) -> Client:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _forget(self, failure: Failure) -> None:
        """Let a dead connection go: gRPC would wait ever longer before it tries again."""
        if failure.code is grpc.StatusCode.UNAVAILABLE and not failure.reason:
            self.close()
