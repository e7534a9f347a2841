"""The torch engine: pads rows into one batch, runs the model once, and hands plain numbers back.

It knows tensors and the output of `StratifiedForSequenceClassification`; no text, no label, no queue.
B rows, T tokens of the longest row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from serving.types import EngineItem, EngineOutput
from stratified_models.base import StratifiedForSequenceClassification


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


class TorchEngine:
    """Runs a model that is prepared for inference, in the precision of its weights."""

    name = "torch"

    def __init__(self, model: StratifiedForSequenceClassification, *, device: torch.device) -> None:
        torch.nn.Module.to(model, device)  # in place; the subclass's own `to` is untyped
        self._model = model
        self._device = device
        self._pad = int(model.config.pad_token_id or 0)
        dtype = next(model.parameters()).dtype
        self.precision = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """See `Engine.run`."""
        longest = max(len(item.ids) for item in items)
        ids = [[*item.ids, *[self._pad] * (longest - len(item.ids))] for item in items]
        mask = [[1] * len(item.ids) + [0] * (longest - len(item.ids)) for item in items]
        with torch.inference_mode():
            output = self._model(
                input_ids=self._tensor(ids),  # (B, T)
                attention_mask=self._tensor(mask),  # (B, T)
                domain_id=self._tensor([item.domain_id for item in items]),  # (B,)
            )
        rows = len(items)
        logits, domains = _lists(output.logits), _lists(output.domain_logits)
        energies = [float(value) for value in output.unknown.float().cpu()]
        occupancy = _lists(output.occupancy) if output.occupancy is not None else [()] * rows
        wanted = output.strata is not None and any(item.per_token for item in items)
        strata = output.strata.float().cpu() if wanted else None  # (B, T, K)
        return [
            EngineOutput(
                logits[row], domains[row], energies[row], occupancy[row], _tokens(strata, row, items[row])
            )
            for row in range(rows)
        ]

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _lists(values: Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in values.float().cpu().tolist()]


def _tokens(strata: Tensor | None, row: int, item: EngineItem) -> tuple[tuple[float, ...], ...]:
    if strata is None or not item.per_token:
        return ()
    return tuple(tuple(token) for token in strata[row, : len(item.ids)].tolist())
