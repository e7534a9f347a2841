"""`torch.compile` without a graph break: every family and every variant is in at least one case."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import nn

from stratified_models import load_tokenizer
from stratified_models.testing import tiny_backbone, tiny_model
from tests.stratified_models.conftest import DOMAINS, TEXTS, largest, move_

LAYERS = 3
COMPILED = [
    ("distilbert", "none"),
    ("bert", "attention"),
    ("roberta", "layers"),
    ("gpt2", "routing"),
    ("gpt2", "moe"),
]


def compiled_agrees(folder: Path, variant: str, compile_: Callable[[nn.Module], Any]) -> None:
    """A compiled model without a graph break gives eager's outputs, at two shapes."""
    model = move_(tiny_model(folder, variant=variant, domains=DOMAINS)).prepare_for_inference()
    tokenizer = load_tokenizer(folder, max_length=64)
    compiled = compile_(model)
    with torch.no_grad():
        for texts in (TEXTS[:2], TEXTS[2:6]):
            rows = dict(tokenizer(list(texts), padding=True, return_tensors="pt"))
            assert largest(compiled(**rows).logits, model(**rows).logits) < 1e-5


@pytest.mark.parametrize(("family", "variant"), COMPILED[4:])
def test_the_whole_forward_is_one_graph(family: str, variant: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    tiny_backbone(tmp_path, family=family, layers=2)
    compiled_agrees(tmp_path, variant, partial(torch.compile, fullgraph=True, dynamic=True, backend="eager"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs a C++ compiler")
@pytest.mark.parametrize(("family", "variant"), COMPILED)
def test_compiled_is_as_eager(family: str, variant: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    tiny_backbone(tmp_path, family=family, layers=2)
    with torch._inductor.config.patch(compile_threads=1):  # no pool of processes to start
        compiled_agrees(tmp_path, variant, partial(torch.compile, fullgraph=True, dynamic=True))
