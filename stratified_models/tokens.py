"""Which positions of a batch are tokens, and which of those are content.

It does not know models. Content is what the attention mask shows and no special id occupies.

B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["never_empty", "token_masks"]


def token_masks(
    input_ids: Tensor | None, attention_mask: Tensor | None, hidden: Tensor, *, special: Iterable[int]
) -> tuple[Tensor, Tensor]:
    """Valid and content tokens, each (B, T) bool, of ids (B, T) whose embeddings are `hidden` (B, T, D).

    Without a mask every position is valid, without ids every valid one is content.
    """
    if attention_mask is None:
        valid = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    else:
        valid = attention_mask.bool()
    content = valid
    if input_ids is not None:
        for token in special:
            content = content & (input_ids != token)
    return valid, content


def never_empty(
    input_ids: Tensor | None, attention_mask: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The same ids and mask; where T = 0, one position of padding stands for the empty text.

    Only a tokenizer that frames nothing (GPT-2) makes such batches.
    """
    if input_ids is None or input_ids.shape[1] > 0:
        return input_ids, attention_mask
    blank = torch.zeros(input_ids.shape[0], 1, dtype=torch.long, device=input_ids.device)
    return blank, blank
