"""What a request may ask, who answers it, and until when: the rules of the service, and none of the wire.

It knows requests and answers as the values of `serving.types`, and says no in the words of `serving.errors`.
The way through the model that was chosen is `serving.pipeline`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from serving.errors import BatchTooLarge, InvalidRequest, ServingError
from serving.models import Models
from serving.pipeline import Answer, Pipeline
from serving.shadow import Shadow
from serving.traffic import Traffic
from serving.types import Classification, Item, Limits, Manner, ModelCard, ModelSummary, Options

__all__ = ["Answer", "Service"]

DEFAULTS = Options()


class Service:
    """Classifies texts with the models of a registry."""

    def __init__(
        self,
        *,
        models: Models,
        limits: Limits,
        pipeline: Pipeline,
        traffic: Traffic,
        shadow: Shadow,
        clock: Callable[[], float],
    ) -> None:
        self._models, self._pipeline, self._clock = models, pipeline, clock
        self._traffic, self._shadow = traffic, shadow
        self.limits = limits
        self.draining = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether the default model answers, and goes on to."""
        return self._models.ready and not self.draining.is_set()

    async def classify(
        self,
        item: Item,
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> Classification:
        """Classify one text within `remaining` seconds (None: the default deadline) for `caller`.

        Raises every `ServingError` that concerns the text or the service.
        """
        answer = (await self._answer([item], model, options, remaining, Manner(caller)))[0]
        if isinstance(answer, ServingError):
            raise answer
        return answer

    async def classify_batch(
        self,
        items: Sequence[Item],
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> list[Answer]:
        """Classify many texts; each has its own answer or its own error, in order.

        Raises only what concerns the request as a whole: `BatchTooLarge`, an unknown model, a refusal, the
        deadline.
        """
        if not items:
            raise InvalidRequest("items is empty; send at least one", field="items")
        if len(items) > self.limits.max_items:
            raise BatchTooLarge(
                f"{len(items)} items, above this server's {self.limits.max_items} a call; send several calls",
                field="items",
            )
        return await self._answer(items, model, options, remaining, Manner(caller))

    async def classify_streamed(
        self,
        item: Item,
        *,
        model: str = "",
        options: Options = DEFAULTS,
        remaining: float | None = None,
        caller: str = "",
    ) -> Answer:
        """Classify one item of a stream: held back while the queue is full, and its error is its own."""
        limit, manner = math.inf if remaining is None else remaining, Manner(caller, patient=True)
        try:
            return (await self._answer([item], model, options, limit, manner))[0]
        except ServingError as error:  # the model went away, or the stream's deadline passed
            return self._pipeline.failed(item, error, manner)

    def pin(self, model: str, options: Options) -> str:
        """The name that `model` stands for now, so that a stream keeps its model, and a reply its labels.

        Raises as `Models.get`, and `InvalidRequest` for options that no item could be answered with.
        """
        card = self._models.get(self._traffic.choose(model)).card
        self._pipeline.filled(options, card)
        return card.version.name

    def model_info(self, name: str) -> tuple[ModelCard, bool]:
        """What is known about a loaded model, and whether it is the default; raises as `Models.get`."""
        card = self._models.get(name).card
        return card, card.version.name == self._models.default

    def list_models(self) -> tuple[list[ModelSummary], str]:
        """Every variant of the store, and the name of the default."""
        return self._models.summaries(), self._models.default

    async def _answer(
        self, items: Sequence[Item], model: str, options: Options, remaining: float | None, manner: Manner
    ) -> list[Answer]:
        started = self._clock()
        deadline = started + (self.limits.default_deadline if remaining is None else remaining)
        deployment = self._models.get(self._traffic.choose(model))
        with deployment.holders.one():  # a bundle that replaces it meanwhile does not end it
            answers = await self._pipeline.answer(
                deployment, items, options, started=started, deadline=deadline, manner=manner
            )
        self._shadow.offer(deployment, items, answers, options)
        return answers
