"""Which engine is taken: what was asked for, or the fastest that gives the same numbers, or a cure."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.encoding import Encoder, TokenizerEncoder
from serving.engines import choice
from serving.engines.choice import Wishes, choose_engine, fastest, parity
from serving.engines.fake import FakeEngine
from serving.errors import BadStore
from stratified_models.bundle import Bundle
from stratified_models.testing import tiny_bundle


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle without exports."""
    return tiny_bundle(tmp_path_factory.mktemp("plain"))


def encoder_of(bundle: Bundle) -> Encoder:
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    return TokenizerEncoder(tokenizer, max_tokens=bundle.manifest.max_length, special_ids=())


def choose(bundle: Bundle, **wishes: Any) -> tuple[Any, list[str]]:
    steps: list[str] = []
    engine = choose_engine(
        bundle, encoder_of(bundle), Wishes(**wishes), clock=time.perf_counter, announce=steps.append
    )
    return engine, steps


@pytest.mark.parametrize(("name", "precision"), [("torch", "fp32"), ("onnx", "fp32"), ("onnx", "int8")])
def test_the_engine_that_was_asked_for(exported: Bundle, name: str, precision: str) -> None:
    engine, steps = choose(exported, engine=name, precision=precision, device="cpu")
    assert (engine.name, engine.precision) == (name, precision)
    assert "checking parity" in steps
    assert "comparing the engines" not in steps


def test_auto_compares_only_where_there_is_a_choice(exported: Bundle, plain: Bundle) -> None:
    engine, steps = choose(exported, device="cpu")
    assert engine.precision == "fp32"
    assert steps[-1] == "comparing the engines"
    engine, steps = choose(plain, device="cpu")
    assert engine.name == "torch"
    assert "comparing the engines" not in steps
    assert choose(exported, precision="int8", device="cpu")[0].name == "onnx"


def test_the_fastest_wins_by_medians() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    slow = FakeEngine(seconds_per_token=2e-3, sleep=sleep)
    quick = FakeEngine(seconds_per_token=1e-3, sleep=sleep)
    for order in ([slow, quick], [quick, slow]):
        assert fastest(order, longest=64, clock=lambda: now[0]) is quick


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"engine": "onnx"}, "holds no ONNX file in fp32; write one with `stratified-train export"),
        ({"engine": "onnx", "precision": "int8"}, "--quantize int8"),
        ({"engine": "onnx", "device": "cuda"}, "set --device cpu, or take --engine torch"),
        ({"engine": "torch", "precision": "int8"}, "torch runs fp32 only; take --engine onnx"),
        ({"precision": "int8"}, "no engine can run this bundle; torch: .*; onnx: "),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_cure(
    plain: Bundle, wishes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadStore, match=message):
        choose(plain, **wishes)


def test_missing_packages_are_named(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    for package, engine in (("torch", "torch"), ("transformers", "torch"), ("onnxruntime", "onnx")):
        monkeypatch.setattr(
            choice, "find_spec", lambda name, gone=package: None if name == gone else real(name)
        )
        with pytest.raises(BadStore, match=f"{package} is not installed"):
            choose(exported, engine=engine)


def test_a_graph_of_other_weights_is_refused(exported: Bundle) -> None:
    wrong = tuple(tuple(value + 1 for value in row) for row in exported.manifest.parity.logits)
    manifest = replace(exported.manifest, parity=replace(exported.manifest.parity, logits=wrong))
    for precision in ("fp32", "int8"):
        with pytest.raises(BadStore, match=r"model.*onnx: logits .* export again"):
            choose(replace(exported, manifest=manifest), engine="onnx", precision=precision)


def test_parity_leaves_out_what_has_no_token(exported: Bundle, tmp_path: Path) -> None:
    engine, _ = choose(exported, engine="onnx")
    assert "" in exported.manifest.parity.texts
    assert parity(engine, encoder_of(exported), exported) < 1e-4
