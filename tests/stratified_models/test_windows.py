"""Short texts out of longer ones: framed as they are, of few tokens in a row, none where a row is short."""

from __future__ import annotations

import torch

from stratified_models.windows import SHORT, short_windows

CLS, SEP = 1, 2


def framed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of so many content tokens 100, 101, …, between CLS and SEP: ids, mask, content."""
    width = max(lengths) + 2
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width)
    for row, length in enumerate(lengths):
        ids[row, : length + 2] = torch.tensor([CLS, *range(100, 100 + length), SEP])
        mask[row, : length + 2] = 1
    return ids, mask.long(), ids >= 100


def test_windows_are_runs_of_a_rows_tokens_in_its_frame() -> None:
    ids, mask, content = framed([30, 4, 12])
    short, shown, owners = short_windows(ids, mask, content, generator=torch.Generator().manual_seed(0))
    assert owners.tolist() == [0, 2]  # the second row is short itself
    for window, seen, owner in zip(short, shown, owners, strict=True):
        own = window[seen.bool()].tolist()
        assert (own[0], own[-1]) == (CLS, SEP)
        first, count = own[1], len(own) - 2
        assert own[1:-1] == list(range(first, first + count))
        assert 1 <= count < SHORT
        assert first + count <= 100 + int(content[owner].sum())
        assert not window[~seen.bool()].any()


def test_every_length_and_both_ends_are_drawn() -> None:
    ids, mask, content = framed([12] * 2000)
    short, _, _ = short_windows(ids, mask, content, generator=torch.Generator().manual_seed(0))
    counts = (short >= 100).sum(-1)
    assert set(counts.tolist()) == set(range(1, SHORT))
    assert int((counts == 1).sum()) > int((counts == 9).sum())  # even on a logarithmic scale
    assert {100, 111} <= set(short[counts == 1].flatten().tolist())


def test_left_padding_and_rows_without_a_frame_are_read_as_they_are() -> None:
    ids = torch.tensor([[0, 0, 0, *range(100, 115)]])
    short, shown, _ = short_windows(
        ids, (ids > 0).long(), ids > 0, generator=torch.Generator().manual_seed(1)
    )
    assert (short[shown.bool()] >= 100).all()
    assert shown[0, 0] == 1


def test_no_row_that_is_long_enough_gives_no_window() -> None:
    short, shown, owners = short_windows(*framed([3, 0]), generator=torch.Generator())
    assert (len(short), len(shown), len(owners)) == (0, 0, 0)
