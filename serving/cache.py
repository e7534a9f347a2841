"""What was computed before for the very same content: tokens of a text, outputs of a row.

Bounded in entries and in bytes, the least recently used goes first; keys are hashes, so that no text is kept
as a key. One cache belongs to one model, and goes with it. It knows no wire and no engine.
"""

from __future__ import annotations

import array
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from serving.encoding import Encoder
from serving.metrics import Metrics
from serving.settings import Settings
from serving.types import Encoded, EngineItem, EngineOutput, Ride, Truncation

__all__ = ["Bounded", "CachedEncoder", "Results", "caches"]

V = TypeVar("V")
T = TypeVar("T")
Seen = Callable[[bool], None]  # told of every look-up: whether it was found

OVERHEAD = 400  # bytes of an entry beside what it holds: key, links, objects
MIB = 1024 * 1024
TEXTS = 20_000  # most texts whose tokens are held
NUMBER = 32  # bytes of a number or a short piece of text in a tuple


def _nobody(found: bool) -> None:
    return None


class Bounded(Generic[V]):
    """A mapping from hashes to values; safe between threads."""

    def __init__(self, *, entries: int, size: int, seen: Seen = _nobody) -> None:
        """At most `entries`, and `size` bytes by the estimates given to `put`."""
        self._entries, self._size, self._seen = entries, size, seen
        self._held: OrderedDict[bytes, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.used = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes) -> V | None:
        """What is held under the key, which so counts as just used."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
        self._seen(found is not None)
        return None if found is None else found[0]

    def put(self, key: bytes, value: V, *, size: int) -> None:
        """Hold a value of about `size` bytes; one that is larger than a tenth of all is not held."""
        size += OVERHEAD
        if size > self._size / 10:
            return
        with self._lock:
            self._drop(key)
            self._held[key] = (value, size)
            self.used += size
            while len(self._held) > self._entries or self.used > self._size:
                self._drop(next(iter(self._held)))

    def _drop(self, key: bytes) -> None:
        _, size = self._held.pop(key, (None, 0))
        self.used -= size


class CachedEncoder:
    """An encoder that remembers; errors are found anew each time."""

    def __init__(self, encoder: Encoder, cache: Bounded[Encoded]) -> None:
        self._encoder, self._cache = encoder, cache

    def encode(self, text: str, truncation: Truncation) -> Encoded:
        """See `Encoder.encode`."""
        data = text.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(data, digest_size=16, person=truncation.value.encode()[:16]).digest()
        found = self._cache.get(key)
        if found is None:
            found = self._encoder.encode(text, truncation)
            self._cache.put(key, found, size=len(found.ids) * 5 * NUMBER)
        return found


class Results:
    """Outputs of rows that were computed before, in front of whatever computes them."""

    def __init__(self, cache: Bounded[EngineOutput], *, clock: Callable[[], float]) -> None:
        self._cache, self._clock = cache, clock

    async def through(
        self,
        items: Sequence[EngineItem],
        compute: Callable[[Sequence[EngineItem]], Awaitable[Sequence[tuple[EngineOutput, Ride] | T]]],
    ) -> list[tuple[EngineOutput, Ride] | T]:
        """One outcome an item, in order; only rows that are not held are given to `compute`.

        A held row waited for nothing and rode in no batch. What is not an output, an error, is not held.
        """
        keys = [_key(item) for item in items]
        known = [self._cache.get(key) for key in keys]
        missing = [item for item, output in zip(items, known, strict=True) if output is None]
        fresh = iter(await compute(missing) if missing else ())
        outcomes: list[tuple[EngineOutput, Ride] | T] = []
        for key, output in zip(keys, known, strict=True):
            if output is not None:
                outcomes.append((output, Ride(0.0, 0.0, 0, 0, began=self._clock())))
                continue
            outcome = next(fresh)
            if isinstance(outcome, tuple):
                self._cache.put(key, outcome[0], size=_size(outcome[0]))
            outcomes.append(outcome)
        return outcomes


def _key(item: EngineItem) -> bytes:
    """The row is the content: texts that read as the same tokens have the same answer."""
    head = f"{item.domain_id} {item.per_token} ".encode()
    return hashlib.blake2b(head + array.array("q", item.ids).tobytes(), digest_size=16).digest()


def _size(output: EngineOutput) -> int:
    numbers = len(output.logits) + len(output.domain_logits) + len(output.occupancy)
    return NUMBER * (numbers + sum(len(token) + 2 for token in output.strata))


def caches(
    settings: Settings, encoder: Encoder, *, metrics: Metrics, clock: Callable[[], float]
) -> tuple[Encoder, Results | None]:
    """The encoder of a model with its cache, and the cache of its results; as far as they are turned on."""

    def seen(name: str) -> Seen:
        held, missed = (metrics.cache_lookups.labels(name, outcome) for outcome in ("hit", "miss"))
        return lambda found: (held if found else missed).inc()

    results = None
    if settings.token_cache:
        tokens: Bounded[Encoded] = Bounded(
            entries=TEXTS, size=settings.token_cache * MIB, seen=seen("tokens")
        )
        encoder = CachedEncoder(encoder, tokens)
    if settings.result_cache:
        outputs: Bounded[EngineOutput] = Bounded(
            entries=settings.result_entries, size=settings.result_cache * MIB, seen=seen("results")
        )
        results = Results(outputs, clock=clock)
    return encoder, results
