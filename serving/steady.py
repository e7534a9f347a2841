"""One stream of texts that outlives its connections: what a broken one left unanswered goes into the next.

A server that restarts, renews its connections or loses its engine costs time and no answer: each item is
answered exactly once, by the service, or, when it broke too many streams, with that failure. When nothing at
all is answered for `patience` seconds, it gives up and says why. It knows no file.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

import grpc

from serving.calls import Answer, CallFailed, Failure
from serving.client import DEFAULTS, AsyncClient
from serving.types import Item, Options, StreamOrder

PATIENCE = 300.0  # seconds without any answer
SHORTEST, LONGEST = 0.1, 5.0  # seconds between attempts, unless the server says
MOST = 8  # streams that an item may see break, or transient failures of its own, before it is given up
LOOK = 0.5  # seconds between looks whether a stream hangs


@dataclass(slots=True)
class Pending:
    """An item that waits for its answer."""

    item: Item
    future: asyncio.Future[Answer]
    sent: bool = False
    attempts: int = 0


class SteadyStream:
    """`async with SteadyStream(client) as stream: answer = await stream.classify(item)`, many at a time."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        model: str = "",
        options: Options = DEFAULTS,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._model, self._options = client, model, options
        self._patience, self._clock = patience, clock
        self._numbers = itertools.count()
        self._pending: dict[str, Pending] = {}
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._wanted = asyncio.Event()
        self._heard = self._clock()
        self._dead: CallFailed | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def classify(self, item: Item) -> Answer:
        """The answer to one item, whatever id it has; raises `CallFailed` when the stream gave up."""
        if self._dead is not None:
            raise self._dead
        if not self._pending:
            self._heard = self._clock()  # silence counts from the first that waits
        number = str(next(self._numbers))
        pending = Pending(item, asyncio.get_running_loop().create_future())
        self._pending[number] = pending
        self._outbox.put_nowait(number)
        self._wanted.set()
        try:
            return await pending.future
        finally:
            self._pending.pop(number, None)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            failure = await self._one_stream()
            self._count_attempts(failure)
            last = failure if not failure.worth_retrying else await self._revived(failure)
            if last is not None:
                self._give_up(last)
                return
            self._begin_again()

    async def _revived(self, failure: Failure) -> Failure | None:
        """Wait until the server answers again; why not, when it does not within the patience.

        It is asked for its model, so that a stream which breaks has been opened on a server that works.
        """
        pause = SHORTEST
        while True:
            if self._clock() - self._heard > self._patience:
                return failure
            await asyncio.sleep(pause if failure.retry_after is None else failure.retry_after)
            pause = min(2 * pause, LONGEST)
            try:
                await self._client.model_info(self._model)
                return None
            except CallFailed as error:
                failure = error.failure
                if not failure.worth_retrying:
                    return failure

    async def _one_stream(self) -> Failure:
        """Send and receive until the stream ends, or hangs; why."""
        receiving = asyncio.create_task(self._receive_all(self._outbox))
        try:
            while not (await asyncio.wait({receiving}, timeout=min(LOOK, self._patience)))[0]:
                silence = self._clock() - self._heard
                if self._pending and silence > self._patience:
                    text = f"no answer for {silence:.0f} s; the server hangs, or --patience is too short"
                    return Failure(grpc.StatusCode.UNAVAILABLE, "", text)
            return receiving.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _receive_all(self, outbox: asyncio.Queue[str]) -> Failure:
        replies = self._client.classify_stream(
            self._requests(outbox), model=self._model, options=self._options, order=StreamOrder.AS_COMPLETED
        )
        try:
            async with aclosing(replies):
                async for number, answer in replies:
                    self._receive(number, answer)
        except CallFailed as error:
            return error.failure
        return Failure(grpc.StatusCode.UNAVAILABLE, "", "the server ended the stream early")

    async def _requests(self, outbox: asyncio.Queue[str]) -> AsyncIterator[Item]:
        while True:
            number = await outbox.get()
            if (pending := self._pending.get(number)) is not None:
                pending.sent = True
                yield Item(pending.item.text, pending.item.domain, number)

    def _receive(self, number: str, answer: Answer) -> None:
        self._heard = self._clock()
        pending = self._pending.get(number)
        if pending is None or pending.future.done():
            return
        if isinstance(answer, Failure) and answer.worth_retrying and pending.attempts < MOST:
            pending.attempts += 1
            wait = SHORTEST * 2**pending.attempts if answer.retry_after is None else answer.retry_after
            asyncio.get_running_loop().call_later(wait, self._outbox.put_nowait, number)
            return
        pending.future.set_result(answer)

    def _count_attempts(self, failure: Failure) -> None:
        """What a stream left unanswered may be what broke it."""
        for pending in self._pending.values():
            pending.attempts += pending.sent
            pending.sent = False
            if pending.attempts > MOST and not pending.future.done():
                pending.future.set_result(failure)

    def _begin_again(self) -> None:
        """Those that saw most streams break come last, so that they break none for the others."""
        self._outbox = asyncio.Queue()
        for number, pending in sorted(self._pending.items(), key=lambda entry: entry[1].attempts):
            if not pending.future.done():
                self._outbox.put_nowait(number)

    def _give_up(self, failure: Failure) -> None:
        self._dead = CallFailed(failure)
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(self._dead)
