"""The ONNX engine: runs a bundle's exported graph with ONNX Runtime, on the CPU, without torch.

It knows arrays and the graph's outputs (see `stratified_models.onnx_model`); no text, no label, no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.engines.arrays import outputs_of, wants_tokens
from serving.types import EngineItem, EngineOutput
from stratified_models.onnx_model import OUTPUTS, OnnxModel


class OnnxEngine:
    """Runs one exported file, in the precision that it was exported in.

    Raises:
        ExportError: the file is not a graph of a bundle.
    """

    name = "onnx"

    def __init__(self, path: Path, *, precision: str, pad: int, threads: int) -> None:
        """`pad` is the id that fills short rows."""
        self.precision = precision
        self._model = OnnxModel(path, pad=pad, threads=threads)
        self._summary = [name for name in self._model.outputs if name != "strata"]
        self._stratified = len(self._model.outputs) > len(OUTPUTS)

    def share(self) -> OnnxEngine:
        """See `Shareable`. A session of ONNX Runtime may be run by several threads."""
        return self

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """See `Engine.run`."""
        explain = self._stratified and wants_tokens(items)
        found = self._model.run(
            [item.ids for item in items],
            [item.domain_id for item in items],
            outputs=None if explain else self._summary,
        )
        return outputs_of(found, items)
