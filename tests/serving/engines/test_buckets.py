"""Graphs of fixed lengths: each earns its place, and all together stay within bounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.engines.buckets import Bounds, Buckets, plan_buckets, resident_bytes

GIVEN = Bounds(count=99, seconds=1e9, memory=10**12)


class Machine:
    """A clock and a memory that runs and compilations move; a graph is its length."""

    def __init__(
        self, static: Callable[[int], float], *, compile_seconds: float = 1.0, size: int = 100
    ) -> None:
        self.now, self.used, self.compiled = 0.0, 0, list[int]()
        self.static, self.compile_seconds, self.size = static, compile_seconds, size

    def compile_for(self, length: int) -> int:
        self.now += self.compile_seconds
        self.used += self.size
        self.compiled.append(length)
        return length

    def run(self, graph: int | None, length: int) -> object:
        self.now += 100.0 + length if graph is None else self.static(length)
        return None

    def plan(self, *, longest: int = 64, bounds: Bounds = GIVEN) -> Buckets[int]:
        return plan_buckets(
            longest=longest,
            bounds=bounds,
            compile_for=self.compile_for,
            run=self.run,
            clock=lambda: self.now,
            memory=lambda: self.used,
        )


def test_every_length_that_gains_is_kept() -> None:
    found = Machine(lambda length: 50.0 + length).plan()
    assert sorted(found.graphs) == [8, 16, 24, 32, 40, 48, 56, 64]
    assert found.ended_by == "all"
    assert [found.of(length) for length in (1, 8, 9, 33, 64, 65, 500)] == [8, 8, 16, 40, 64, 0, 0]
    assert str(found).startswith("8, 16, 24, 32, 40, 48, 56, 64 (ended by all; ")


def test_two_lengths_without_gain_end_the_search() -> None:
    machine = Machine(lambda length: 50.0 if length <= 16 else 500.0)
    found = machine.plan()
    assert sorted(found.graphs) == [8, 16]
    assert machine.compiled == [8, 16, 24, 32]
    assert found.ended_by == "gain"


def test_no_gain_leaves_one_graph_for_all() -> None:
    found = Machine(lambda length: 100.0 + length).plan()
    assert found.graphs == {}
    assert [found.of(length) for length in (0, 1, 8, 64)] == [0, 0, 0, 0]
    assert str(found).startswith("none (ended by gain")


def test_padding_that_costs_more_than_it_saves_is_not_paid() -> None:
    """At 8 a graph of its own takes 60; at 64, 150, more than 131 for a row of 31 in the other graph."""
    seconds = {8: 60.0, 16: 1e4, 64: 150.0}
    found = Machine(lambda length: seconds[length]).plan(longest=16)
    assert sorted(found.graphs) == [8]
    machine = Machine(lambda length: 99.0 if length == 8 else 115.0)
    found = machine.plan(longest=16)
    assert sorted(found.graphs) == [8]
    found = Machine(lambda length: 50.0 if length == 8 else 112.0).plan(longest=16)
    assert found.of(16) == 16
    assert found.of(9) == 0  # 101 in the graph of any length, 112 in that of 16
    assert found.of(12) == 16


@pytest.mark.parametrize(
    ("bounds", "kept", "reason"),
    [
        (Bounds(3, 1e9, 10**12), [8, 16, 24], "count"),
        (Bounds(0, 1e9, 10**12), [], "count"),
        (Bounds(99, 0.0, 10**12), [], "time"),
        (Bounds(99, 1500.0, 10**12), [8, 16], "time"),
        (Bounds(99, 1e9, 250), [8, 16], "memory"),
    ],
)
def test_bounds_hold(bounds: Bounds, kept: list[int], reason: str) -> None:
    found = Machine(lambda length: 50.0 + length).plan(bounds=bounds)
    assert sorted(found.graphs) == kept
    assert found.ended_by == reason


def test_a_model_of_an_odd_length_gets_a_graph_for_it() -> None:
    found = Machine(lambda length: 50.0).plan(longest=20)
    assert sorted(found.graphs) == [8, 16, 20]
    assert found.of(20) == 20


def test_memory_is_what_the_system_says(tmp_path: Path) -> None:
    assert resident_bytes() > 10**6
    statm = tmp_path / "statm"
    statm.write_text("100 7 3")
    assert resident_bytes(statm) == 7 * 4096
    assert resident_bytes(tmp_path / "none") == 0
    statm.write_text("odd")
    assert resident_bytes(statm) == 0
