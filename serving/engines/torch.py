"""The torch engine: pads rows into one batch, runs the model once, and hands plain numbers back.

It knows tensors and the output of `StratifiedForSequenceClassification`; no text, no label, no queue. On a
GPU it can keep the kernels of often seen shapes as CUDA graphs (see `cuda_graphs`).
B rows, T tokens of the longest row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from serving.engines.arrays import Feed, assemble, outputs_of, wants_tokens
from serving.types import EngineItem, EngineOutput
from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["TorchEngine", "choose_device", "in_bf16_", "own_memory"]

SUMMARY = ("logits", "domain_logits", "energy", "occupancy")
Forward = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU where there is one, else the CPU; `RuntimeError` where there is no GPU."""
    gpu = torch.cuda.is_available()
    if name == "cuda" and not gpu:
        raise RuntimeError("no GPU is visible to torch")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and gpu) else "cpu")


def own_memory(model: StratifiedForSequenceClassification) -> StratifiedForSequenceClassification:
    """The same model with weights that are no longer mapped from their file.

    A mapped file that is cut in place, as `cp` over it does, kills the process at the next use. Copying each
    tensor's data would not do: views keep what they are views of.
    """
    return copy.deepcopy(model)


def in_bf16_(model: StratifiedForSequenceClassification) -> StratifiedForSequenceClassification:
    """Cast the encoder's matrices to bfloat16; the rest follows by autocast, as in training.

    So no matrix is cast again in each run, and what the model keeps in fp32, such as its gate, stays so.
    """
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    return model


class TorchEngine:
    """Runs a model that is prepared for inference. `precision` is fp32, or bf16 to cast its weights."""

    name = "torch"

    def __init__(
        self, model: StratifiedForSequenceClassification, *, device: torch.device, precision: str = "fp32"
    ) -> None:
        if precision == "bf16":
            in_bf16_(model)
        torch.nn.Module.to(model, device)  # in place; the subclass's own `to` is untyped
        self.precision = precision
        self._device = device
        self._pad = int(model.config.pad_token_id or 0)
        plain = _forward(model, device, bf16=precision == "bf16")
        self._forward = _graphed(plain, device, self._pad) if device.type == "cuda" else plain

    def share(self) -> TorchEngine:
        """See `Shareable`. A forward pass keeps nothing on the model."""
        return self

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """See `Engine.run`."""
        with torch.inference_mode():
            found = self._forward(self._tensors(assemble(items, pad=self._pad)))
            names = (*SUMMARY, "strata") if wants_tokens(items) else SUMMARY
            return outputs_of({name: _array(found[name]) for name in names if name in found}, items)

    def _tensors(self, feed: Feed) -> dict[str, Tensor]:
        """On the CPU the arrays' own memory; to a GPU by pinned memory, without waiting."""
        tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
        if self._device.type == "cpu":
            return tensors
        return {
            name: tensor.pin_memory().to(self._device, non_blocking=True) for name, tensor in tensors.items()
        }


def _forward(model: StratifiedForSequenceClassification, device: torch.device, *, bf16: bool) -> Forward:
    def forward(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            reply = model(**tensors)
        found = {name: getattr(reply, name) for name in ("logits", "domain_logits", "occupancy", "strata")}
        found["energy"] = reply.unknown
        return {name: value for name, value in found.items() if value is not None}

    return forward


def _graphed(forward: Forward, device: torch.device, pad: int) -> Forward:
    from serving.engines.cuda_graphs import GraphedForward

    return GraphedForward(forward, device=device, pad=pad)


def _array(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.float().cpu().numpy()
    return array
