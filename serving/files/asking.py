"""A file through a running server: the same stream for a run that writes a file and one that prints.

It knows the client and rows, and no format.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import grpc

from serving.calls import Answer, Failure
from serving.client import DEFAULTS, AsyncClient
from serving.files.answering import each, refused, waited
from serving.files.rows import Row
from serving.files.run import Run
from serving.files.state import State
from serving.steady import PATIENCE, SteadyStream
from serving.streams import pipelined
from serving.types import Limits, Options, StreamOrder

IN_FLIGHT = 256  # rows read, and not yet answered in their turn
ENVELOPE = 1024  # bytes of a message beside the text


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server is asked; `live`: the rows come from a pipe, and each is answered as it comes."""

    client: AsyncClient
    model: str = ""
    options: Options = DEFAULTS
    patience: float = PATIENCE
    live: bool = False

    async def answers(self, rows: Iterator[Row], limits: Limits) -> AsyncIterator[tuple[Row, Answer]]:
        """Every row with its answer, in their order; raises `CallFailed` when none come any more."""
        async with SteadyStream(
            self.client, model=self.model, options=self.options, patience=self.patience
        ) as stream:

            async def work(row: Row) -> Answer:
                return _beforehand(row, limits) or await stream.classify(row.item)

            source = waited(rows) if self.live else each(rows)
            in_order = pipelined(
                source, work, limit=IN_FLIGHT, order=StreamOrder.AS_SENT, stop=asyncio.Event()
            )
            async with aclosing(in_order):
                async for row, answer in in_order:
                    yield row, answer

    async def of(self, rows: Iterator[Row]) -> AsyncIterator[tuple[Row, Answer]]:
        """The same, of a server whose limits are not known yet."""
        _, limits = await self.client.model_info(self.model)
        async for pair in self.answers(rows, limits):
            yield pair

    async def file(self, run: Run) -> State:
        """Answer what is left of a run; raises `CallFailed`, and `BadInput`."""
        card, limits = await self.client.model_info(self.model)
        made = {"model": card.version.name, "sha256": card.version.sha256}
        return await run.go(lambda rows: self.answers(rows, limits), labels=card.labels, made=made)


def _beforehand(row: Row, limits: Limits) -> Failure | None:
    """What a server need not be asked, or would break the stream for."""
    if row.problem:
        return refused(row)
    size = len(row.item.text.encode())
    if size + ENVELOPE > limits.max_message_bytes:
        text = (
            f"the text has {size} bytes, above this server's {limits.max_message_bytes} a message; split it"
        )
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, "TEXT_TOO_LONG", text, field="text")
    return None
