"""The OpenVINO engine: torch's answers at every length and batch, in graphs of fixed lengths and without."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from serving.engines.buckets import Bounds, Buckets
from serving.engines.onnx import OnnxEngine
from serving.engines.openvino import OpenvinoEngine
from serving.types import EngineItem, EngineOutput
from stratified_models.bundle import Bundle
from stratified_models.errors import ExportError
from stratified_models.openvino_runtime import runs_bf16

LONGEST = 64
LENGTHS = (1, 2, 7, 8, 9, 16, 31, 32, 63, 64)
FREE = Bounds(count=4, seconds=60.0)


def rows(*lengths: int) -> list[EngineItem]:
    return [
        EngineItem(
            tuple(5 + (7 * token + length) % 90 for token in range(length)), place % 3 - 1, place % 2 == 0
        )
        for place, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def engine(exported: Bundle) -> OpenvinoEngine:
    return OpenvinoEngine(
        exported.path / "model.onnx", precision="fp32", pad=0, threads=1, longest=LONGEST, bounds=FREE
    )


@pytest.fixture(scope="module")
def reference(exported: Bundle) -> OnnxEngine:
    return OnnxEngine(exported.path / "model.onnx", precision="fp32", pad=0, threads=1)


def assert_same(found: list[EngineOutput], wanted: list[EngineOutput], *, within: float = 1e-4) -> None:
    for one, other in zip(found, wanted, strict=True):
        for name in ("logits", "domain_logits", "energy", "occupancy"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=within)
        assert len(one.strata) == len(other.strata)
        for token, same in zip(one.strata, other.strata, strict=True):
            assert token == pytest.approx(same, abs=within)


@pytest.mark.parametrize("length", LENGTHS)
def test_single_rows_of_every_length(engine: OpenvinoEngine, reference: OnnxEngine, length: int) -> None:
    for item in rows(length, length):
        assert_same(engine.run([item]), reference.run([item]))


def test_batches_of_unlike_lengths(engine: OpenvinoEngine, reference: OnnxEngine) -> None:
    for lengths in ((3, 3), (1, 64), (5, 17, 40, 2), (9,) * 8):
        assert_same(engine.run(rows(*lengths)), reference.run(rows(*lengths)))


def test_graphs_of_fixed_lengths_compute_the_same(exported: Bundle, reference: OnnxEngine) -> None:
    """Whether or not they are faster on this machine: every graph is taken, and rows are padded up to it."""
    engine = OpenvinoEngine(exported.path / "model.onnx", precision="fp32", pad=0, threads=1)
    whole = engine._requests.compiled
    slow = [10.0] * 3
    buckets: Buckets[object] = Buckets()
    from serving.engines import openvino

    for length, dynamic in zip((8, 16, 64), slow, strict=True):
        model = openvino._read(exported.path / "model.onnx")
        model.reshape({"input_ids": [1, length], "attention_mask": [1, length], "domain_id": [1]})
        buckets.note(length, dynamic=dynamic, static=1.0, graph=openvino._compile(model, "f32", 1, 1))
    buckets.settle()
    engine._requests = openvino.Requests(openvino.Compiled(whole.whole, buckets, whole.outputs, whole.pad))
    assert [engine.buckets.of(length) for length in (1, 8, 9, 17, 64)] == [8, 8, 16, 64, 64]
    for length in LENGTHS:
        for item in rows(length, length):
            assert_same(engine.run([item]), reference.run([item]))


def test_what_was_compiled_is_told(engine: OpenvinoEngine) -> None:
    assert "ended by" in str(engine.buckets)
    assert len(engine.buckets.graphs) <= FREE.count
    assert set(engine.buckets.graphs) <= {8, 16, 24, 32, 40, 48, 56, 64}


def test_threads_share_the_graphs_and_not_the_answers(engine: OpenvinoEngine) -> None:
    """Outputs live in the request's own memory: two threads on one request would read each other's."""
    twins = [engine.share(), engine.share()]
    assert {id(twin._requests.compiled) for twin in twins} == {id(engine._requests.compiled)}
    assert twins[0].precision == engine.precision
    expected = [engine.run(rows(12)), engine.run(rows(30, 4))]
    wrong: list[int] = []

    def work(place: int) -> None:
        batch = (rows(12), rows(30, 4))[place]
        for attempt in range(30):
            if twins[place].run(batch) != expected[place]:
                wrong.append(attempt)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_strata_only_for_rows_that_ask(engine: OpenvinoEngine) -> None:
    first, second = engine.run([EngineItem((2, 5, 3)), EngineItem((2, 5, 6, 3), per_token=True)])
    assert first.strata == ()
    assert [sum(token) for token in second.strata] == pytest.approx([1.0] * 4, abs=1e-5)
    assert engine.run([EngineItem((2, 5, 3))])[0].strata == ()


def test_the_quantised_file_runs_too(exported: Bundle) -> None:
    path = exported.path / "model.int8.onnx"
    found = OpenvinoEngine(path, precision="int8", pad=0, threads=1)
    reference = OnnxEngine(path, precision="int8", pad=0, threads=1)
    assert found.precision == "int8"
    for length in LENGTHS:
        assert_same(found.run(rows(length)), reference.run(rows(length)), within=0.05)


def test_bf16_is_a_hint_that_never_harms(exported: Bundle, reference: OnnxEngine) -> None:
    """Where the processor has none, the hint is without effect, and the numbers are those of fp32."""
    found = OpenvinoEngine(exported.path / "model.onnx", precision="bf16", pad=0, threads=1)
    for length in LENGTHS:
        for one, other in zip(found.run(rows(length)), reference.run(rows(length)), strict=True):
            assert one.logits == pytest.approx(other.logits, abs=0.1 if runs_bf16() else 1e-4)


def test_what_is_no_graph_of_a_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"model\.onnx cannot be run by openvino \(.*\); export it again"):
        OpenvinoEngine(path, precision="fp32", pad=0, threads=1)


def test_a_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    ])  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(tmp_path / "other.onnx"))
    with pytest.raises(ExportError, match=r"other\.onnx takes \('x',\) and gives \('y',\)"):
        OpenvinoEngine(tmp_path / "other.onnx", precision="fp32", pad=0, threads=1)


def test_runs_without_torch(exported: Bundle) -> None:
    code = f"""
        import sys
        sys.modules["torch"] = None
        from pathlib import Path
        from serving.engines.openvino import OpenvinoEngine
        from serving.types import EngineItem
        engine = OpenvinoEngine(
            Path({str(exported.path / "model.onnx")!r}), precision="fp32", pad=0, threads=1
        )
        print(len(engine.run([EngineItem((2, 5, 3))])[0].logits))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from serving.engines.openvino import OpenvinoEngine
from stratified_models.openvino_runtime import adds_int8_exactly, runs_bf16
first, second, third = (
    OpenvinoEngine(Path(sys.argv[1]), precision="fp32", pad=0, threads=1) for _ in range(3)
)
runs_bf16(), adds_int8_exactly()
del first
gc.collect()
del second
gc.collect()
del third
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_reaches_its_handler_after_engines_came_and_went(exported: Bundle) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(exported.path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
