"""The shipped double keeps the promises of its seams."""

from __future__ import annotations

import threading

import pytest

from serving.engines.base import Engine, EngineDied
from serving.engines.fake import FakeEncoder, FakeEngine, FakeSource
from serving.errors import BadStore, EmptyText, TextTooLong
from serving.source import Source
from serving.types import EngineItem, Truncation


def test_it_fits_the_seams() -> None:
    engine: Engine = FakeEngine()
    source: Source = FakeSource()
    assert engine.name == "fake"
    assert source.open().default == "none"


def test_an_answer_depends_on_the_row_and_the_domain_alone() -> None:
    engine = FakeEngine()
    one, two = EngineItem((1, 2)), EngineItem((3,))
    assert engine.run([one, two]) == [engine.run([one])[0], engine.run([two])[0]]
    assert engine.run([one])[0].logits != engine.run([EngineItem((1, 2), domain_id=1)])[0].logits


def test_strata_sum_to_one_and_tokens_are_given_when_asked_for() -> None:
    engine = FakeEngine()
    [plain] = engine.run([EngineItem((1, 2))])
    [told] = engine.run([EngineItem((1, 2), per_token=True)])
    assert sum(plain.occupancy) == pytest.approx(1)
    assert plain.strata == ()
    assert [sum(token) for token in told.strata] == pytest.approx([1, 1])
    assert FakeEngine(strata=0).run([EngineItem((1,))])[0].occupancy == ()


def test_it_fails_dies_waits_and_takes_its_time_when_told_to() -> None:
    slept: list[float] = []
    engine = FakeEngine(seconds_per_token=0.5, sleep=slept.append)
    engine.raise_on.add(7)
    with pytest.raises(ValueError, match="told to fail"):
        engine.run([EngineItem((7,)), EngineItem((1, 2))])
    assert slept == [2.0]
    engine.die.set()
    with pytest.raises(EngineDied):
        engine.run([EngineItem((1,))])
    engine.die.clear()
    engine.gate.clear()
    thread = threading.Thread(target=engine.run, args=([EngineItem((1,))],))
    thread.start()
    assert thread.is_alive()
    engine.gate.set()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("mode", "kept"),
    [(Truncation.HEAD, "a b c d"), (Truncation.TAIL, "c d e f"), (Truncation.HEAD_TAIL, "a b e f")],
)
def test_its_encoder_cuts_as_the_real_one(mode: Truncation, kept: str) -> None:
    found = FakeEncoder(max_tokens=6).encode("a b c d e f", mode)
    assert found.pieces == ("[CLS]", *kept.split(), "[SEP]")
    assert found.original_count == 8
    assert found.spans[1] == (("a b c d e f").index(kept[0]), ("a b c d e f").index(kept[0]) + 1)


def test_its_encoder_refuses_as_the_real_one() -> None:
    with pytest.raises(TextTooLong):
        FakeEncoder(max_tokens=4).encode("a b c", Truncation.REJECT)
    with pytest.raises(EmptyText):
        FakeEncoder().encode(" \t", Truncation.HEAD)


def test_its_source_can_be_broken() -> None:
    source = FakeSource("none", "moe", broken=("moe",))
    with pytest.raises(BadStore):
        source.load(source.open().variants["moe"], lambda step: None)
