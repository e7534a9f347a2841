"""What is held, for how long, and that an answer from the cache is the answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from serving.cache import OVERHEAD, Bounded, CachedEncoder, Results, caches
from serving.engines.fake import FakeEncoder, FakeEngine
from serving.errors import EmptyText, ItemFailed
from serving.metrics import Metrics
from serving.settings import Settings
from serving.types import Encoded, EngineItem, EngineOutput, Ride, Truncation

RIDE = Ride(0.1, 0.2, 3, 30)


def bounded(entries: int = 100, size: int = 10**6) -> Bounded[str]:
    return Bounded(entries=entries, size=size)


def test_the_least_recently_used_goes_first() -> None:
    cache = bounded(entries=2)
    cache.put(b"a", "A", size=1)
    cache.put(b"b", "B", size=1)
    assert cache.get(b"a") == "A"
    cache.put(b"c", "C", size=1)
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == ["A", None, "C"]


def test_bytes_are_bounded_too() -> None:
    cache = bounded(size=100 * OVERHEAD)
    for place in range(200):
        cache.put(bytes([place]), "x", size=3 * OVERHEAD)
        assert cache.used <= 100 * OVERHEAD
    assert len(cache) == 25
    cache.put(b"large", "x", size=11 * OVERHEAD)
    assert cache.get(b"large") is None


def test_a_key_that_is_put_again_counts_once() -> None:
    cache = bounded()
    cache.put(b"a", "old", size=50)
    cache.put(b"a", "new", size=70)
    assert cache.get(b"a") == "new"
    assert (len(cache), cache.used) == (1, 70 + OVERHEAD)


def test_threads_leave_the_books_in_order() -> None:
    cache = bounded(entries=20)

    def work(seed: int) -> None:
        for step in range(500):
            key = bytes([(seed * step) % 40])
            if cache.get(key) is None:
                cache.put(key, "x", size=10)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.used == len(cache) * (10 + OVERHEAD)
    assert len(cache) <= 20


class Counting(FakeEncoder):
    """Counts how often it had to work."""

    calls = 0

    def encode(self, text: str, truncation: Truncation) -> Encoded:
        """See `Encoder.encode`."""
        self.calls += 1
        return super().encode(text, truncation)


def test_a_text_is_tokenised_once_for_each_truncation() -> None:
    plain = Counting(max_tokens=4)
    encoder = CachedEncoder(plain, Bounded(entries=9, size=10**6))
    text = "one two three four"
    for _ in range(3):
        for truncation in (Truncation.HEAD, Truncation.TAIL, Truncation.HEAD_TAIL):
            assert encoder.encode(text, truncation) == FakeEncoder(max_tokens=4).encode(text, truncation)
    assert plain.calls == 3
    for _ in range(2):
        with pytest.raises(EmptyText):
            encoder.encode("  ", Truncation.HEAD)
    assert encoder.encode("half a pair \ud800", Truncation.HEAD).ids


class Engine:
    """Computes rows, and remembers which; a row of 13 fails."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    async def __call__(self, items: Sequence[EngineItem]) -> list[tuple[EngineOutput, Ride] | ItemFailed]:
        self.rows += [item.ids for item in items]
        outputs = FakeEngine().run(items)
        return [
            ItemFailed("no") if 13 in item.ids else (output, RIDE)
            for item, output in zip(items, outputs, strict=True)
        ]


async def test_only_what_is_new_is_computed() -> None:
    engine = Engine()
    results = Results(Bounded(entries=9, size=10**6), clock=lambda: 5.0)
    first = [EngineItem((1, 2)), EngineItem((3,)), EngineItem((13,))]
    second = [EngineItem((4,)), EngineItem((1, 2)), EngineItem((13,)), EngineItem((3,))]
    expected = FakeEngine().run(second)
    await results.through(first, engine)
    found = await results.through(second, engine)
    assert engine.rows == [(1, 2), (3,), (13,), (4,), (13,)]
    assert found[0] == (expected[0], RIDE)
    assert found[1] == (expected[1], Ride(0.0, 0.0, 0, 0, 5.0))
    assert isinstance(found[2], ItemFailed)
    assert found[3] == (expected[3], Ride(0.0, 0.0, 0, 0, 5.0))


async def test_domain_and_explanation_are_part_of_the_content() -> None:
    engine = Engine()
    results = Results(Bounded(entries=9, size=10**6), clock=lambda: 0.0)
    items = [EngineItem((1,)), EngineItem((1,), 0), EngineItem((1,), 1), EngineItem((1,), per_token=True)]
    for _ in range(2):
        outcomes = await results.through(items, engine)
        outputs = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
        assert outputs == FakeEngine().run(items)
    assert len(engine.rows) == 4


async def test_settings_turn_them_on_and_look_ups_are_counted() -> None:
    metrics, encoder = Metrics(CollectorRegistry()), FakeEncoder()

    def count(cache: str, outcome: str) -> float | None:
        labels = {"cache": cache, "outcome": outcome}
        return metrics.registry.get_sample_value("stratified_cache_lookups_total", labels)

    off = Settings(models="m", token_cache=0)
    assert caches(off, encoder, metrics=metrics, clock=lambda: 0.0) == (encoder, None)
    on = Settings(models="m", result_cache=1)
    cached, results = caches(on, encoder, metrics=metrics, clock=lambda: 0.0)
    assert results is not None
    for _ in range(3):
        ids = cached.encode("one two", Truncation.HEAD).ids
        await results.through([EngineItem(ids)], Engine())
    assert [count("tokens", "hit"), count("tokens", "miss")] == [2.0, 1.0]
    assert [count("results", "hit"), count("results", "miss")] == [2.0, 1.0]
