"""A model's exported graph, run by ONNX Runtime: token ids in, arrays out.

It needs numpy and onnxruntime, and knows no torch, no tokenizer and no label. The names of inputs and outputs
are the contract between whoever exports and whoever runs.

B rows, T tokens of the longest row, C classes, N domains, K strata.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stratified_models.errors import ExportError

__all__ = ["INPUTS", "NAMES", "OUTPUTS", "STRATA_OUTPUTS", "OnnxModel", "feed_of", "known_names"]

INPUTS: tuple[str, ...] = ("input_ids", "attention_mask", "domain_id")  # int64 (B, T), (B, T), (B,)
OUTPUTS: tuple[str, ...] = ("logits", "domain_logits", "energy")  # fp32 (B, C), (B, N), (B,)
STRATA_OUTPUTS: tuple[str, ...] = ("occupancy", "strata")  # fp32 (B, K), (B, T, K); not of `none`
NAMES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}  # file in the bundle, by precision
QUIET = 3  # of onnxruntime's log: errors only

Arrays = dict[str, npt.NDArray[np.float32]]


class OnnxModel:
    """One session on the CPU; `outputs` are the names that this graph has.

    Raises:
        ExportError: the file is no graph, or not one with these inputs and outputs.
    """

    def __init__(self, path: Path, *, pad: int, threads: int, as_written: bool = False) -> None:
        """`pad` fills short rows; `threads` 0 takes every core that the machine has; `as_written` computes
        node by node and fuses nothing: slow, and quantised products in floating point.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        if as_written:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = QUIET
        # Idle threads would spin on cores that the rest of the process needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, which have no common base but this
            reason = str(error).splitlines()[0]
            raise ExportError(
                f"{path.name} cannot be run by onnxruntime ({reason}); export it again"
            ) from error
        inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())
        if inputs != INPUTS or self.outputs not in (OUTPUTS, (*OUTPUTS, *STRATA_OUTPUTS)):
            raise ExportError(
                f"{path.name} takes {inputs} and gives {self.outputs}, not what a bundle's graph does; "
                "export it again"
            )
        self._pad = pad

    def run(
        self,
        rows: Sequence[Sequence[int]],
        domain_ids: Sequence[int],
        *,
        outputs: Sequence[str] | None = None,
    ) -> Arrays:
        """Compute one padded batch.

        Args:
            rows: token ids of each row, at least one.
            domain_ids: −1 where unknown.
            outputs: which outputs are wanted; None is all.
        """
        wanted = list(self.outputs if outputs is None else outputs)
        feed = feed_of(rows, domain_ids, pad=self._pad)
        return dict(zip(wanted, self._session.run(wanted, feed), strict=True))


def known_names(ports: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Each input's or output's name, of all those that a runtime knows it by: the one of the contract."""
    contract = {*INPUTS, *OUTPUTS, *STRATA_OUTPUTS}
    return tuple(min(names, key=lambda name: (name not in contract, name), default="") for names in ports)


def feed_of(
    rows: Sequence[Sequence[int]], domain_ids: Sequence[int], *, pad: int
) -> dict[str, npt.NDArray[np.int64]]:
    """The graph's inputs by name for rows of token ids, filled with `pad` to the longest."""
    shape = (len(rows), max(len(row) for row in rows))
    ids = np.full(shape, pad, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return dict(zip(INPUTS, (ids, mask, np.asarray(domain_ids, dtype=np.int64)), strict=True))
