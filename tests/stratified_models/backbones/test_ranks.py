"""Every family on two ranks, as DDP and as one FSDP unit: the gradients are those of the whole batch.

Worker functions run in processes of their own, over gloo on the loopback.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from stratified_models import StratifiedForSequenceClassification, load_tokenizer
from stratified_models.testing import tiny_backbone, tiny_model
from tests.stratified_models.conftest import DOMAINS, TEXTS, VARIANTS, move_
from tests.stratified_models.test_parallel import RANKS, gradients, mean_over_ranks, port, wrapped

pytestmark = pytest.mark.slow
FAMILIES = ("bert", "roberta", "gpt2")  # distilbert: tests/stratified_models/test_parallel.py
CASES = tuple(itertools.product(FAMILIES, VARIANTS))

Batch = dict[str, Tensor]


def make(folder: str, family: str, variant: str) -> StratifiedForSequenceClassification:
    still: dict[str, Any] = {"domain_dropout": 0.0, "dropout": 0.0}
    place = Path(folder) / family
    model = move_(tiny_model(place, family=family, variant=variant, domains=DOMAINS, **still))
    model.train()
    return model


def work(rank: int, address: str, folder: str, batches: dict[str, Batch]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    mesh, found = init_device_mesh("cpu", (RANKS,)), {}
    for family, variant in CASES:
        share = {name: tensor.chunk(RANKS)[rank] for name, tensor in batches[family].items()}
        parallel = wrapped(make(folder, family, variant))
        parallel(**share).loss.backward()
        shards = make(folder, family, variant)
        shards.average_over_ranks = mean_over_ranks
        fully_shard(shards, mesh=mesh, reshard_after_forward=False)
        shards(**share).loss.backward()
        whole = {name: cast(DTensor, grad).full_tensor() for name, grad in gradients(shards).items()}
        found[family, variant] = {"ddp": gradients(parallel.module), "fsdp": whole}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def batches(folder: Path) -> dict[str, Batch]:
    """Rows with unequal numbers of known domains on the two ranks."""
    made = {}
    for family in FAMILIES:
        tokenizer = load_tokenizer(tiny_backbone(folder / family, family=family), max_length=64)
        rows = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
        made[family] = {
            "input_ids": rows["input_ids"],
            "attention_mask": rows["attention_mask"],
            "labels": torch.tensor([2, 2, 0, 1, 1, 2, 1, 1]),
            "domain_id": torch.tensor([0, 2, -1, -1, 2, 2, 1, -1]),
        }
    return made


@pytest.fixture(scope="module")
def found(folder: Path, batches: dict[str, Batch]) -> list[Any]:
    arguments = (f"tcp://127.0.0.1:{port()}", str(folder), batches)
    spawn(work, args=arguments, nprocs=RANKS)  # type: ignore[no-untyped-call]  # untyped in torch
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize(("family", "variant"), CASES)
def test_invariant_21_gradients_of_two_ranks_are_those_of_one(
    family: str, variant: str, folder: Path, batches: dict[str, Batch], found: list[Any]
) -> None:
    model = make(str(folder), family, variant)
    model(**batches[family]).loss.backward()
    expected = gradients(model)
    for rank, how in itertools.product(range(RANKS), ("ddp", "fsdp")):
        theirs = found[rank][family, variant][how]
        assert set(theirs) == set(expected)
        for name, gradient in expected.items():
            scale = max(float(gradient.abs().max()), 1e-2)
            assert float((theirs[name] - gradient).abs().max()) <= 1e-5 * scale, (how, name)
