"""Short texts made from rows: a run of a few content tokens of each, framed as the row is.

Of texts with fewer than ten tokens most data sets have few, and some domains none. What the encoder makes of
such a text differs from what it makes of a longer one of the same kind, so whoever needs to know how has it
read these. It knows token ids, and no model.

B rows, T tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["SHORT", "short_windows"]

SHORT = 10  # content tokens: a text of fewer is short, and a row of fewer has no shorter one in it


def short_windows(
    input_ids: Tensor, attention_mask: Tensor, content: Tensor, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row that is not short itself, up to nine content tokens in a row: how many is drawn evenly on a
    logarithmic scale, and where.

    Args:
        input_ids: token ids, (B, T); `attention_mask` 1 for tokens, (B, T); `content`, (B, T) bool.
        generator: of the draws.

    Returns:
        Ids and mask (W, T′) of the W windows, padded on the right, and each one's row, (W,).
    """
    kept, owners = [], []
    for row, places in enumerate(part.nonzero().flatten() for part in content):
        if len(places) < SHORT:
            continue
        length, start = torch.rand(2, generator=generator).tolist()
        length = int(math.exp(length * math.log(SHORT)))
        start = int(start * (len(places) - length + 1))
        shown = attention_mask[row].bool() & ~content[row]
        shown[places[start : start + length]] = True
        kept.append(input_ids[row][shown])
        owners.append(row)
    padded = torch.zeros(len(kept), max((len(ids) for ids in kept), default=1), dtype=input_ids.dtype)
    mask = torch.zeros_like(padded)
    for row, ids in enumerate(kept):
        padded[row, : len(ids)], mask[row, : len(ids)] = ids, 1
    return padded, mask, torch.tensor(owners, dtype=torch.long)
