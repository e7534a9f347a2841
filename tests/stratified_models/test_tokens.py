"""Which positions count, and the batch without any."""

from __future__ import annotations

import torch

from stratified_models.tokens import never_empty, token_masks


def test_content_is_valid_and_not_special() -> None:
    ids = torch.tensor([[2, 9, 1, 3, 0], [2, 8, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    valid, content = token_masks(ids, mask, torch.zeros(2, 5, 4), special=(0, 2, 3))
    assert torch.equal(valid, mask.bool())
    assert content.tolist() == [[False, True, True, False, False], [False, True, False, False, False]]


def test_without_mask_or_ids_everything_counts() -> None:
    valid, content = token_masks(None, None, torch.zeros(1, 3, 4), special=(0,))
    assert bool(valid.all())
    assert bool(content.all())


def test_an_empty_batch_gets_one_position_of_padding() -> None:
    ids, mask = never_empty(torch.zeros(2, 0), None)  # a tokenizer makes floats of nothing
    assert ids is not None
    assert mask is not None
    assert ids.shape == mask.shape == (2, 1)
    assert ids.dtype == torch.long
    assert not bool(mask.any())
    full = torch.ones(2, 1, dtype=torch.long)
    assert never_empty(full, None) == (full, None)
    assert never_empty(None, full) == (None, full)
