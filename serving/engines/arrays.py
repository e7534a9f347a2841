"""Rows in, padded arrays out, and back: what every engine that computes on numpy arrays shares.

It knows the names of a graph's inputs and outputs (see `stratified_models.onnx_model`), and no runtime.
B rows, T tokens of the longest row, C classes, N domains, K strata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.types import EngineItem, EngineOutput

__all__ = ["Feed", "assemble", "outputs_of", "wants_tokens"]

Feed = dict[str, npt.NDArray[np.int64]]


def assemble(items: Sequence[EngineItem], *, pad: int, length: int = 0) -> Feed:
    """The graph's inputs for these rows: ids and mask (B, T), domains (B,), all int64.

    Rows are filled with `pad` up to the longest of them, or to `length` where that is more. All ids go into
    the array in one step, by the mask: a batch costs one pass, however many rows it has.
    """
    lengths = np.fromiter((len(item.ids) for item in items), dtype=np.int64, count=len(items))
    tokens = max(int(lengths.max()), length)
    filled = np.arange(tokens) < lengths[:, None]  # (B, T)
    ids = np.full(filled.shape, pad, dtype=np.int64)
    flat = chain.from_iterable(item.ids for item in items)
    ids[filled] = np.fromiter(flat, dtype=np.int64, count=int(lengths.sum()))
    domains = np.fromiter((item.domain_id for item in items), dtype=np.int64, count=len(items))
    return {"input_ids": ids, "attention_mask": filled.astype(np.int64), "domain_id": domains}


def wants_tokens(items: Sequence[EngineItem]) -> bool:
    """Whether any row asks for the strata of its tokens."""
    return any(item.per_token for item in items)


def outputs_of(found: Mapping[str, npt.NDArray[Any]], items: Sequence[EngineItem]) -> list[EngineOutput]:
    """Plain numbers out of a graph's outputs; without `occupancy` and `strata` for a model that has none.

    Padding is left out of a row's strata.
    """
    strata = found.get("strata")
    plain = {name: values.tolist() for name, values in found.items() if name != "strata"}
    occupancy = plain.get("occupancy")
    outputs = []
    for row, item in enumerate(items):
        tokens: list[list[float]] = []
        if strata is not None and item.per_token:
            tokens = strata[row, : len(item.ids)].tolist()
        outputs.append(
            EngineOutput(
                tuple(plain["logits"][row]),
                tuple(plain["domain_logits"][row]),
                plain["energy"][row],
                () if occupancy is None else tuple(occupancy[row]),
                tuple(map(tuple, tokens)),
            )
        )
    return outputs
