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
from serving.engines import build, choice
from serving.engines.buckets import Bounds
from serving.engines.build import Wishes, parity
from serving.engines.choice import choose_engine, compare
from serving.engines.fake import FakeEngine
from serving.errors import BadStore
from stratified_models.bundle import Bundle
from stratified_models.errors import ExportError
from stratified_models.openvino_int8 import OPENVINO_INT8
from stratified_models.testing import tiny_bundle
from tests.conftest import pretend_vnni


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle without exports."""
    return tiny_bundle(tmp_path_factory.mktemp("plain"))


def encoder_of(bundle: Bundle) -> Encoder:
    tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    return TokenizerEncoder(tokenizer, max_tokens=bundle.manifest.max_length, special_ids=())


def choose(bundle: Bundle, **wishes: Any) -> tuple[Any, list[str]]:
    steps: list[str] = []
    wishes = {"bounds": Bounds(count=2), **wishes}
    found = choose_engine(
        bundle, encoder_of(bundle), Wishes(**wishes), clock=time.perf_counter, announce=steps.append
    )
    return found.engine, steps


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("torch", "fp32"),
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
    ],
)
def test_the_engine_that_was_asked_for(exported: Bundle, name: str, precision: str) -> None:
    engine, steps = choose(exported, engine=name, precision=precision, device="cpu")
    assert (engine.name, engine.precision) == (name, precision)
    assert "checking parity" in steps
    assert "comparing the engines" not in steps


def test_auto_compares_only_where_there_is_a_choice(exported: Bundle, plain: Bundle) -> None:
    engine, steps = choose(exported, device="cpu")
    assert engine.precision == "fp32"
    assert steps[-2] == "comparing the engines"
    assert steps[-1].startswith(f"{engine.name} is the fastest: onnx ")
    engine, steps = choose(plain, device="cpu")
    assert engine.name == "torch"
    assert "comparing the engines" not in steps
    assert choose(exported, precision="int8", device="cpu")[0].precision == "int8"


def test_int8_is_compared_between_the_files_of_both_runtimes(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sums do overflow the file is far from what was recorded of it: that does not matter here."""
    pretend_vnni(monkeypatch)
    exports = {name: replace(entry, error=1.0) for name, entry in exported.manifest.exports.items()}
    bundle = replace(exported, manifest=replace(exported.manifest, exports=exports))
    engine, steps = choose(bundle, precision="int8", device="cpu")
    assert "loading model.int8.onnx" in steps
    assert "compiling model.int8.openvino.onnx for openvino" in steps
    assert steps[-1].startswith(f"{engine.name} is the fastest: onnx ")


def test_the_choice_tells_what_was_measured(exported: Bundle) -> None:
    wishes = Wishes(device="cpu", bounds=Bounds(count=0))
    found = choose_engine(
        exported, encoder_of(exported), wishes, clock=time.perf_counter, announce=lambda step: None
    )
    assert set(found.seconds) == {"onnx", "openvino"}
    assert found.seconds[found.engine.name] == min(found.seconds.values())


def test_the_fastest_wins_by_medians() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    slow = FakeEngine(seconds_per_token=2e-3, sleep=sleep)
    quick = FakeEngine(seconds_per_token=1e-3, sleep=sleep)
    for order in ([slow, quick], [quick, slow]):
        assert compare(order, longest=64, clock=lambda: now[0]).engine is quick


def test_an_engine_that_cannot_read_the_file_is_left_out(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.build

    def build_but(name: str, *arguments: Any) -> Any:
        if name in broken:
            raise ExportError(f"{name} cannot")
        return real(name, *arguments)

    monkeypatch.setattr(choice, "build", build_but)
    broken = {"openvino"}
    engine, steps = choose(exported, device="cpu")
    assert engine.name == "onnx"
    assert "openvino is left out: openvino cannot" in steps
    broken = {"openvino", "onnx"}
    assert choose(exported, device="cpu")[0].name == "torch"
    broken = {"openvino", "onnx", "torch"}
    with pytest.raises(ExportError, match="onnx cannot"):
        choose(exported, device="cpu")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"engine": "onnx"}, "holds no ONNX file in fp32; write one with `stratified-train export"),
        ({"engine": "onnx", "precision": "int8"}, "--quantize int8"),
        ({"engine": "onnx", "device": "cuda"}, "set --device cpu, or take --engine torch"),
        ({"engine": "torch", "precision": "int8"}, "torch runs fp32, and bf16 on a GPU; take --engine onnx"),
        ({"engine": "torch", "precision": "bf16"}, "torch runs bf16 on a GPU only; take --engine openvino"),
        ({"engine": "onnx", "precision": "bf16"}, "it runs fp32 and int8; take --engine openvino"),
        ({"engine": "openvino"}, "holds no ONNX file in fp32; write one with"),
        ({"engine": "openvino", "device": "cuda"}, "set --device cpu, or take --engine torch"),
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
    for package, engine in (
        ("torch", "torch"),
        ("transformers", "torch"),
        ("onnxruntime", "onnx"),
        ("openvino", "openvino"),
    ):
        monkeypatch.setattr(
            build, "find_spec", lambda name, gone=package: None if name == gone else real(name)
        )
        with pytest.raises(BadStore, match=f"{package} is not installed"):
            choose(exported, engine=engine)


def test_a_package_that_cannot_be_imported_is_left_out_and_named(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> object:
        raise OSError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(build, "import_module", broken)
    with pytest.raises(BadStore, match=r"openvino is installed and cannot be imported \(libopenvino.so"):
        choose(exported, engine="openvino")
    assert choose(exported, device="cpu")[0].name == "torch"


def test_a_graph_of_other_weights_is_refused(exported: Bundle) -> None:
    wrong = tuple(tuple(value + 1 for value in row) for row in exported.manifest.parity.logits)
    manifest = replace(exported.manifest, parity=replace(exported.manifest.parity, logits=wrong))
    for engine in ("onnx", "openvino"):
        for precision in ("fp32", "int8"):
            with pytest.raises(BadStore, match=r"model.*onnx: logits .* export again"):
                choose(replace(exported, manifest=manifest), engine=engine, precision=precision)


def test_a_file_whose_sums_overflow_here_is_not_run(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that was exported on a newer processor: the other int8 file answers, in either engine."""
    pretend_vnni(monkeypatch, answer=False)
    engine, steps = choose(exported, precision="int8", device="cpu")
    assert (engine.name, steps) == ("onnx", ["loading model.int8.onnx", "checking parity"])
    _, steps = choose(exported, engine="openvino", precision="int8", device="cpu")
    assert "compiling model.int8.onnx for openvino" in steps
    alone = {name: entry for name, entry in exported.manifest.exports.items() if name == OPENVINO_INT8}
    bundle = replace(exported, manifest=replace(exported.manifest, exports=alone))
    with pytest.raises(BadStore, match="none of the bundle's files in int8 is for it on this processor; "):
        choose(bundle, engine="openvino", precision="int8")


def test_parity_leaves_out_what_has_no_token(exported: Bundle, tmp_path: Path) -> None:
    engine, _ = choose(exported, engine="onnx")
    assert "" in exported.manifest.parity.texts
    assert parity(engine, encoder_of(exported), exported) < 1e-4


def test_bf16_only_where_the_processor_has_it(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stratified_models.openvino_runtime.runs_bf16", lambda: False)
    with pytest.raises(BadStore, match="this processor has no bfloat16; set --precision fp32 or int8"):
        choose(exported, engine="openvino", precision="bf16")
    monkeypatch.setattr("stratified_models.openvino_runtime.runs_bf16", lambda: True)
    engine, _ = choose(exported, engine="openvino", precision="bf16")
    assert (engine.name, engine.precision) == ("openvino", "bf16")
