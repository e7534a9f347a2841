"""Two ranks are one (invariant 21): same loss and gradients at equal global batch, ranks equal at the end.

Worker functions run in processes of their own, over gloo on the loopback.
"""

from __future__ import annotations

import socket
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
from torch.nn.parallel import DistributedDataParallel

from stratified_models import StratifiedForSequenceClassification
from stratified_models.testing import tiny_model
from stratified_models.variants.moe import Experts
from tests.stratified_models.conftest import DOMAINS, VARIANTS, move_

RANKS = 2
pytestmark = pytest.mark.slow


def port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def mean_over_ranks(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()


def sum_over_ranks(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values)
    return values


def wrapped(model: StratifiedForSequenceClassification) -> DistributedDataParallel:
    model.average_over_ranks = mean_over_ranks
    return DistributedDataParallel(model, find_unused_parameters=False, broadcast_buffers=False)


def make(backbone: str, variant: str, **options: Any) -> StratifiedForSequenceClassification:
    options = {"domain_dropout": 0.0, "dropout": 0.0, **options}
    model = move_(tiny_model(Path(backbone), variant=variant, domains=DOMAINS, **options))
    model.train()
    return model


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def work(rank: int, address: str, backbone: str, batch: dict[str, Tensor], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    torch.save(one_step(rank, backbone, batch), f"{folder}/step-{rank}.pt")
    torch.save(sharded(rank, backbone, batch), f"{folder}/sharded-{rank}.pt")
    torch.save(train(rank, backbone, batch), f"{folder}/train-{rank}.pt")
    dist.destroy_process_group()


def one_step(rank: int, backbone: str, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Of each variant: the mean loss, the gradients, and the experts' bias after balancing."""
    share = {name: tensor.chunk(RANKS)[rank] for name, tensor in batch.items()}
    found = {}
    for variant in VARIANTS:
        parallel = wrapped(make(backbone, variant))
        out = parallel(**share)
        out.loss.backward()
        parallel.module.balance_experts_(sum_over_ranks)
        found[variant] = (
            mean_over_ranks(out.loss.detach()[None])[0],
            gradients(parallel.module),
            {
                name: buffer.clone()
                for name, buffer in parallel.module.named_buffers()
                if name.endswith(".bias")
            },
        )
    return found


def sharded(rank: int, backbone: str, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Of each variant, as one FSDP unit: the gradients, put together again, and the loss after a step."""
    share = {name: tensor.chunk(RANKS)[rank] for name, tensor in batch.items()}
    mesh, found = init_device_mesh("cpu", (RANKS,)), {}
    for variant in VARIANTS:
        model = make(backbone, variant)
        model.average_over_ranks = mean_over_ranks
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model(**share).loss.backward()
        whole = {name: cast(DTensor, grad).full_tensor() for name, grad in gradients(model).items()}
        optimizer.step()
        model.balance_experts_(sum_over_ranks)
        found[variant] = whole, mean_over_ranks(model(**share).loss.detach()[None])[0]
    return found


def train(rank: int, backbone: str, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Four steps: rank 1 never sees a known domain, and the third batch has no content token anywhere."""
    states = {}
    for name in (*VARIANTS, "moe-dense"):
        parallel = wrapped(make(backbone, name.removesuffix("-dense"), dropout=0.1))
        for module in parallel.modules():
            if isinstance(module, Experts):
                module.execution = "dense" if name.endswith("-dense") else "grouped"
        optimizer = torch.optim.AdamW(parallel.parameters(), lr=1e-3)
        torch.manual_seed(rank)
        for step in range(4):
            share = {key: tensor.chunk(RANKS)[rank].clone() for key, tensor in batch.items()}
            if rank == 1:
                share["domain_id"].fill_(-1)
            if step == 2:
                share["input_ids"][:] = 2  # [CLS] everywhere
            optimizer.zero_grad()
            loss = parallel(**share).loss
            loss.backward()
            optimizer.step()
            parallel.module.balance_experts_(sum_over_ranks)
            if not bool(torch.isfinite(loss)):
                raise AssertionError(f"{name}: loss is not finite at step {step}")
        states[name] = parallel.module.state_dict()
    return states


@pytest.fixture(scope="module")
def ranks(
    backbone: Path, batch: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    address = f"tcp://127.0.0.1:{port()}"
    arguments = (address, str(backbone), batch, str(folder))
    spawn(work, args=arguments, nprocs=RANKS)  # type: ignore[no-untyped-call]  # untyped in torch
    return {
        what: [torch.load(folder / f"{what}-{rank}.pt") for rank in range(RANKS)]
        for what in ("step", "sharded", "train")
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_21_two_ranks_have_the_loss_and_gradients_of_one(
    variant: str, ranks: dict[str, list[dict[str, Any]]], backbone: Path, batch: dict[str, Tensor]
) -> None:
    known = batch["domain_id"] >= 0
    assert int(known[:4].sum()) != int(known[4:].sum())  # unequal counts on the ranks, or this proves little
    model = make(str(backbone), variant)
    out = model(**batch)
    out.loss.backward()
    model.balance_experts_()
    loss, found, biases = ranks["step"][0][variant]
    assert abs(float(loss) - float(out.loss.detach())) < 1e-6
    expected = gradients(model)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) <= 1e-5 * max(scale, 1e-2), name
    buffers = dict(model.named_buffers())
    assert all(torch.equal(bias, buffers[name]) for name, bias in biases.items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariant_21_shards_have_the_gradients_of_the_whole(
    variant: str, ranks: dict[str, list[dict[str, Any]]], backbone: Path, batch: dict[str, Tensor]
) -> None:
    model = make(str(backbone), variant)
    before = model(**batch).loss
    before.backward()
    expected = gradients(model)
    for found, after in (ranks["sharded"][rank][variant] for rank in range(RANKS)):
        assert set(found) == set(expected)
        for name, gradient in expected.items():
            scale = float(gradient.abs().max())
            assert float((found[name] - gradient).abs().max()) <= 1e-5 * max(scale, 1e-2), name
        assert float(after) < float(before.detach())


def test_invariant_21_ranks_stay_bit_equal(ranks: dict[str, list[dict[str, Any]]]) -> None:
    one, two = ranks["train"]
    assert len(one) == len(VARIANTS) + 1
    for variant, state in one.items():
        for name, tensor in state.items():
            assert torch.equal(tensor, two[variant][name]), (variant, name)
