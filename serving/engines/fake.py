"""The shipped double of a model: deterministic, quick, and as faulty as a test wants it.

`FakeEngine` computes nothing but a hash of its tokens, so the same text always gives the same answer,
whatever batch it rides in. It knows no torch. Use it to try the service, or a client, without weights:

    engine = FakeEngine(labels=3, domains=2)
    engine.raise_on.add(42)          # any row that holds token 42 fails its batch
    engine.die.set()                 # the next batch kills the engine; clear it, and it can be revived
    engine.gate.clear()              # hold every batch until gate.set()

`FakeSource` gives a whole `serving.app.App` such models in place of bundles.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.costs import CostModel
from serving.engines.base import EngineDied
from serving.errors import BadStore, EmptyText, TextTooLong
from serving.source import Announce, Found, Loaded, Store
from serving.types import Domain, Encoded, EngineItem, EngineOutput, ModelCard, ModelVersion, Truncation

WORD = re.compile(r"\w+|[^\w\s]")
CLS, SEP = 1, 2


class FakeEngine:
    """Answers with numbers drawn from a hash of the row; `batches` records the rows of every batch that it
    ran.
    """

    name = "fake"
    precision = "fp64"

    def __init__(
        self,
        *,
        labels: int = 3,
        domains: int = 2,
        strata: int = 4,
        seconds_per_token: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._labels, self._domains, self._strata = labels, domains, strata
        self._seconds, self._sleep = seconds_per_token, sleep
        self.raise_on: set[int] = set()
        self.die = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.started = 0
        self.batches: list[list[tuple[int, ...]]] = []

    def share(self) -> FakeEngine:
        """See `Shareable`. Its answers hang on the row alone."""
        return self

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """See `Engine.run`."""
        self.started += 1
        self.gate.wait()
        if self.die.is_set():
            raise EngineDied("told to die")
        self.batches.append([item.ids for item in items])
        if self._seconds:
            self._sleep(self._seconds * max(len(item.ids) for item in items) * len(items))
        if any(not self.raise_on.isdisjoint(item.ids) for item in items):
            raise ValueError("told to fail on a token of this batch")
        return [self._output(item) for item in items]

    def _output(self, item: EngineItem) -> EngineOutput:
        logits = _numbers(item.ids, self._labels, salt=item.domain_id)
        domains = _numbers(item.ids, self._domains, salt=101)
        shares = _shares(item.ids, self._strata)
        tokens = tuple(_shares((token,), self._strata) for token in item.ids) if item.per_token else ()
        return EngineOutput(logits, domains, energy=-max(domains), occupancy=shares, strata=tokens)


class FakeEncoder:
    """Words and punctuation are tokens; ids are hashes; one special token at either end."""

    def __init__(self, *, max_tokens: int = 16) -> None:
        self._room = max_tokens - 2

    def encode(self, text: str, truncation: Truncation) -> Encoded:
        """See `Encoder.encode`."""
        found = [(match.group(), match.span()) for match in WORD.finditer(text)]
        if not found:
            raise EmptyText(
                "the text holds nothing that the model can read; send at least one word", field="text"
            )
        kept = found
        if len(found) > self._room:
            if truncation is Truncation.REJECT:
                raise TextTooLong(
                    f"{len(found) + 2} tokens, above {self._room + 2}; shorten the text", field="text"
                )
            head = {Truncation.HEAD: self._room, Truncation.TAIL: 0}.get(
                truncation, self._room - self._room // 2
            )
            kept = found[:head] + (found[head - self._room :] if head < self._room else [])
        ids = (CLS, *(3 + zlib.crc32(word.encode()) % 30_000 for word, _ in kept), SEP)
        pieces = ("[CLS]", *(word for word, _ in kept), "[SEP]")
        spans = ((0, 0), *(span for _, span in kept), (0, 0))
        content = (False, *(True for _ in kept), False)
        return Encoded(ids, pieces, spans, content, len(found) + 2)


class FakeSource:
    """Models without files: `names` with one engine each (in `engines`), the first of them the default.

    Names in `broken` cannot be loaded. `publish` puts a newer model in the place of one, `selected` is what
    a sweep would have selected, and `weights` how many bytes each model takes.
    """

    def __init__(self, *names: str, broken: Sequence[str] = (), **engine: Any) -> None:
        self.default = (names or ("none",))[0]
        self.broken, self.selected, self._engine = set(broken), "", engine
        self.weights = 0
        self.cards: dict[str, ModelCard] = {}
        self.engines: dict[str, FakeEngine] = {}
        self.replaced: list[FakeEngine] = []
        for name in names or ("none",):
            self.publish(fake_card(name))

    def publish(self, card: ModelCard) -> FakeEngine:
        """Let the store hold this model from now on; the engine that it will be loaded with."""
        name = card.version.name
        if name in self.engines:
            self.replaced.append(self.engines[name])
        self.cards[name], self.engines[name] = card, FakeEngine(**self._engine)
        return self.engines[name]

    def open(self) -> Store:
        """See `Source.open`."""
        versions = {name: card.version for name, card in self.cards.items()}
        here = Path("fake")
        variants = {
            name: Found(name, here / name, version.version, version.sha256, weights=self.weights)
            for name, version in versions.items()
        }
        return Store(here, variants, self.default, self.selected)

    def look(self) -> Store:
        """See `Source.look`."""
        return self.open()

    def load(self, found: Found, announce: Announce) -> Loaded:
        """See `Source.load`."""
        announce("inventing a model")
        if found.name in self.broken:
            raise BadStore(f"{found.name} was told to be broken")
        costs, card = CostModel(initial=1e6), self.cards[found.name]
        return Loaded(card, FakeEncoder(), self.engines[found.name], costs, batch_tokens=64)


def fake_card(
    name: str = "none", *, strata: int = 4, max_tokens: int = 16, sha256: str = "0" * 64
) -> ModelCard:
    """The card that goes with a default `FakeEngine` and `FakeEncoder`."""
    return ModelCard(
        version=ModelVersion(name, "0", sha256),
        labels=("negative", "neutral", "positive"),
        domains=(
            Domain("imdb", ("negative", "positive"), 0.5),
            Domain("tweets", ("negative", "neutral", "positive"), 0.5),
        ),
        max_tokens=max_tokens,
        temperature=1.5,
        out_of_domain_threshold=0.5,
        strata=strata,
        engine="fake",
        precision="fp64",
    )


def _numbers(ids: Sequence[int], count: int, *, salt: int) -> tuple[float, ...]:
    """`count` numbers in [-2, 2)."""
    seeds = (zlib.crc32(repr((tuple(ids), salt, index)).encode()) for index in range(count))
    return tuple(seed / 2**30 - 2 for seed in seeds)


def _shares(ids: Sequence[int], count: int) -> tuple[float, ...]:
    if not count:
        return ()
    numbers = [number + 2.1 for number in _numbers(ids, count, salt=7)]
    return tuple(number / sum(numbers) for number in numbers)
