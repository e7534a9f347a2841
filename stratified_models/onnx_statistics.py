"""What activations of a graph are like on usual texts: the largest value of each column, and second moments.

It knows onnx and onnxruntime, and no torch, no bundle and no model.

X (n, F) are an activation's rows: of tokens that are no padding, where it has one for each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Feed", "Floats", "largest_values", "second_moments"]

FLOAT = 1  # onnx.TensorProto.FLOAT, without importing onnx for it
MOST_BYTES = 512 << 20  # of moments that one run of the graph collects

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Feed = Mapping[str, npt.NDArray[np.int64]]


def largest_values(source: Path, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Floats]:
    """Largest absolute value of each column of the named activations, (F,), over all feeds."""
    found: dict[str, Floats] = {}
    for name, rows in _rows(source, names, feeds):
        most = np.abs(rows).max(axis=0)
        found[name] = np.maximum(found.get(name, most), most)
    return found


def second_moments(
    source: Path, widths: Mapping[str, int], feeds: Sequence[Feed]
) -> Iterator[tuple[str, Doubles]]:
    """Σ xᵀx over all feeds, (F, F), of each named activation; `widths` are their F.

    Wide graphs are run more than once, so that what is held at a time stays within `MOST_BYTES`.
    """
    for names in _portions(widths):
        found = {name: np.zeros((widths[name], widths[name])) for name in names}
        for name, rows in _rows(source, names, feeds):
            wide = rows.astype(np.float64)
            found[name] += wide.T @ wide
        yield from found.items()


def _portions(widths: Mapping[str, int]) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, width in widths.items():
        size = 8 * width * width
        if names and held + size > MOST_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    if names:
        yield names


def _rows(source: Path, names: Sequence[str], feeds: Iterable[Feed]) -> Iterator[tuple[str, Floats]]:
    """The rows of each named activation, feed by feed."""
    import onnx
    import onnxruntime as ort

    whole = onnx.load(str(source))
    whole.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    session: Any = ort.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for feed in feeds:
        mask = feed.get("attention_mask")
        for name, value in zip(names, session.run(list(names), dict(feed)), strict=True):
            if mask is not None and value.shape[:-1] == mask.shape:
                yield name, value[mask.astype(bool)]
            else:
                yield name, value.reshape(-1, value.shape[-1])
