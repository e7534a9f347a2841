"""Which models answer: the loaded ones by name, the default, and the state of the others in the store.

It knows no file and no wire. Changed on the event loop alone, so a request sees one consistent state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from serving.cache import Results
from serving.encoding import Encoder
from serving.errors import EngineCrashed, ModelNotFound, ModelNotLoaded, ModelNotReady
from serving.lane import Lane
from serving.memory import Lease
from serving.types import ModelCard, ModelState, ModelSummary


class Holders:
    """Counts who uses a model right now, so that one which was replaced is let go after the last of them."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, inside."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def gone(self) -> None:
        """Wait until there is nobody."""
        while self._count:
            self._none.clear()
            await self._none.wait()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A loaded model: what is known about it, its tokenizer, the way through its engine, the room that it
    holds, what it has answered before, and who uses it.
    """

    card: ModelCard
    encoder: Encoder
    lane: Lane
    lease: Lease | None = None
    results: Results | None = None
    holders: Holders = field(default_factory=Holders)


class Models:
    """The registry. `on_change` is called with whether the default model can answer, whenever that may have
    changed.
    """

    def __init__(self, *, on_change: Callable[[bool], None] = lambda ready: None) -> None:
        self._summaries: dict[str, ModelSummary] = {}
        self._loaded: dict[str, Deployment] = {}
        self._on_change = on_change
        self.default = ""

    @property
    def ready(self) -> bool:
        """Whether the default model answers."""
        summary = self._summaries.get(self.default)
        return summary is not None and summary.state is ModelState.READY

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Everything that is loaded."""
        return tuple(self._loaded.values())

    def summaries(self) -> list[ModelSummary]:
        """Every variant of the store, by name."""
        return [self._summaries[name] for name in sorted(self._summaries)]

    def record(self, summary: ModelSummary) -> None:
        """Note that the store has this variant, and its state."""
        self._summaries[summary.name] = summary
        self._on_change(self.ready)

    def add(self, deployment: Deployment) -> None:
        """Let a loaded model answer from now on."""
        version = deployment.card.version
        self._loaded[version.name] = deployment
        self.record(ModelSummary(version.name, ModelState.READY, version.version, version.sha256))

    def loaded(self, name: str) -> Deployment | None:
        """The model that is loaded under this name, whether or not its engine works right now."""
        return self._loaded.get(name)

    def summary(self, name: str) -> ModelSummary | None:
        """What is known of this variant of the store."""
        return self._summaries.get(name)

    def choose(self, name: str) -> None:
        """Let this variant answer requests that name none."""
        self.default = name
        self._on_change(self.ready)

    def remove(self, name: str) -> Deployment:
        """Let a loaded model answer no new request; raises `KeyError` when it is not loaded."""
        deployment = self._loaded.pop(name)
        self.record(replace(self._summaries[name], state=ModelState.AVAILABLE, error=""))
        return deployment

    def forget(self, name: str) -> None:
        """The store no longer has this variant, which is not loaded."""
        self._summaries.pop(name, None)

    def set_health(self, name: str, healthy: bool) -> None:
        """The engine of a loaded model crashed, or works again."""
        state = ModelState.READY if healthy else ModelState.FAILED
        error = "" if healthy else "the engine crashed and is being restarted"
        self.record(replace(self._summaries[name], state=state, error=error))

    def get(self, name: str) -> Deployment:
        """The model for a request that names `name` ("" = the default).

        Raises `ModelNotFound`, `ModelNotLoaded`, `ModelNotReady` or `EngineCrashed`.
        """
        wanted = name or self.default
        summary = self._summaries.get(wanted)
        if summary is None:
            if not wanted:
                raise ModelNotReady("the service has no model yet; try again", retry_after=1.0)
            known = ", ".join(sorted(self._summaries)) or "none yet"
            raise ModelNotFound(f"model {_short(name)!r} is not in the store; choose one of: {known}")
        if summary.state is ModelState.READY:
            return self._loaded[wanted]
        if summary.state is ModelState.AVAILABLE:
            loaded = ", ".join(sorted(self._loaded)) or "none yet"
            raise ModelNotLoaded(
                f"model {wanted!r} is in the store but not loaded; choose one of: {loaded}, or restart "
                f"the server with --load selected,{wanted}"
            )
        if wanted in self._loaded:
            raise EngineCrashed(
                f"the engine of model {wanted!r} is being restarted; try again", retry_after=1.0
            )
        if summary.state is ModelState.LOADING:
            raise ModelNotReady(f"model {wanted!r} is being loaded; try again", retry_after=1.0)
        raise ModelNotReady(f"model {wanted!r} could not be loaded; ListModels says why")


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:40] + "…"
