"""What the training steps of one process cost: tokens with and without padding, rows, seconds by phase.

It counts; it does not know the Trainer or the other ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Meter:
    """Counters of one unit on this process."""

    real_tokens: int = 0
    padded_tokens: int = 0
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0, "save": 0.0})

    def add(self, attention_mask: torch.Tensor) -> None:
        """Count a batch by its mask, (B, T)."""
        self.real_tokens += int(attention_mask.sum())
        self.padded_tokens += attention_mask.numel()
        self.rows += attention_mask.shape[0]

    @property
    def counts(self) -> list[int]:
        """Real tokens, padded tokens, rows: what is summed over ranks."""
        return [self.real_tokens, self.padded_tokens, self.rows]

    def rates(self, real: float, padded: float, rows: float) -> dict[str, float | None]:
        """Per second of training, and the share of padding, from sums over ranks; else None."""
        seconds = self.seconds["train"]
        if not padded or not seconds:
            names = ("tokens_per_second", "padded_tokens_per_second", "rows_per_second", "padding_share")
            return dict.fromkeys(names)
        return {
            "tokens_per_second": real / seconds,
            "padded_tokens_per_second": padded / seconds,
            "rows_per_second": rows / seconds,
            "padding_share": 1 - real / padded,
        }
