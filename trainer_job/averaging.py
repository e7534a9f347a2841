"""A moving average of the trained weights, which is what is evaluated and kept.

θ̄ ← d·θ̄ + (1-d)·θ after each optimizer step (Polyak and Juditsky 1992; exponential as in Tarvainen and
Valpola 2017), with d = min(decay, (1+n)/(10+n)) at the n-th step, so that the first steps are soon forgotten.
It knows parameters by name and files, not the Trainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

FILE = "average.safetensors"


class WeightAverage:
    """The average of a model's trainable parameters; equal on every rank, because the weights are."""

    def __init__(self, model: Any, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.own = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.average = {name: value.detach().clone() for name, value in self.own.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take one optimizer step's weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            list(self.average.values()), [value.detach() for value in self.own.values()], 1 - decay
        )

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the model's weights and the average."""
        for name, value in self.own.items():
            held = value.detach().clone()
            value.copy_(self.average[name])
            self.average[name].copy_(held)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the average inside the block, and its own weights after it."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def save(self, checkpoint: Path) -> None:
        """Write the average beside a checkpoint's weights."""
        from safetensors.torch import save_file

        values = {name: value.contiguous() for name, value in self.average.items()}
        save_file(values, checkpoint / FILE, metadata={"updates": str(self.updates)})

    @torch.no_grad()
    def load(self, checkpoint: Path) -> None:
        """Go on with the average of a checkpoint."""
        from safetensors import safe_open

        with safe_open(checkpoint / FILE, framework="pt") as stored:
            self.updates = int(stored.metadata()["updates"])
            for name, value in self.average.items():
                value.copy_(stored.get_tensor(name))
