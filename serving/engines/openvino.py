"""The OpenVINO engine: runs a bundle's exported graph on the CPU, in fp32, bf16 or int8, without torch.

It knows arrays and the graph's outputs (see `stratified_models.onnx_model`); no text, no label, no queue.
One compiled graph takes rows of any number and length. Beside it stand graphs for single rows of fixed
lengths, where these are faster (see `buckets`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.engines.arrays import Feed, assemble, outputs_of, wants_tokens
from serving.engines.buckets import Bounds, Buckets, plan_buckets, resident_bytes
from serving.types import EngineItem, EngineOutput
from stratified_models.errors import ExportError
from stratified_models.onnx_model import INPUTS, OUTPUTS, STRATA_OUTPUTS
from stratified_models.openvino_runtime import DEVICE, core

__all__ = ["OpenvinoEngine"]

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # int8 is in the graph; what it leaves is fp32


@dataclass(frozen=True, slots=True)
class Compiled:
    """What all threads have in common: the graph of any size, those of fixed lengths, and their outputs."""

    whole: Any
    buckets: Buckets[Any]
    outputs: tuple[str, ...]
    pad: int


@dataclass(slots=True)
class Requests:
    """One thread's own requests, made when first used: they hold the memory of a run."""

    compiled: Compiled
    made: dict[int, Any] = field(default_factory=dict)

    def of(self, bucket: int) -> Any:
        """The request of this fixed length; 0: of any."""
        if bucket not in self.made:
            graph = self.compiled.buckets.graphs[bucket] if bucket else self.compiled.whole
            self.made[bucket] = graph.create_infer_request()
        return self.made[bucket]


class OpenvinoEngine:
    """Runs one exported file. `precision` is fp32 or bf16 for the fp32 file, int8 for a quantised one.

    Raises:
        ExportError: the file is not a graph of a bundle, or OpenVINO cannot compile it.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        precision: str,
        pad: int,
        threads: int,
        workers: int = 1,
        longest: int = 0,
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`pad` fills short rows. Each of `workers` threads that call at once computes with `threads`.

        `longest` is the longest text in tokens; with `bounds`, graphs of fixed lengths up to it are tried.
        """
        self.precision = precision
        try:
            self._requests = Requests(_compiled(path, HINTS[precision], pad, threads, workers))
            if bounds is not None:
                self._requests = Requests(self._with_buckets(path, longest, bounds, clock, threads, workers))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ExportError(f"{path.name} cannot be run by openvino ({reason}); export it again") from error

    @property
    def buckets(self) -> Buckets[Any]:
        """The graphs of fixed lengths, and what they cost."""
        return self._requests.compiled.buckets

    def share(self) -> OpenvinoEngine:
        """See `Shareable`: the same compiled graphs, with requests of its own."""
        twin = object.__new__(OpenvinoEngine)
        twin.precision, twin._requests = self.precision, Requests(self._requests.compiled)
        return twin

    def run(self, items: Sequence[EngineItem]) -> list[EngineOutput]:
        """See `Engine.run`."""
        compiled = self._requests.compiled
        bucket = compiled.buckets.of(len(items[0].ids)) if len(items) == 1 else 0
        feed = assemble(items, pad=compiled.pad, length=bucket)
        found = _infer(self._requests.of(bucket), feed)
        names = compiled.outputs if wants_tokens(items) else compiled.outputs[: len(OUTPUTS) + 1]
        return outputs_of({name: found[name] for name in names}, items)

    def _with_buckets(
        self,
        path: Path,
        longest: int,
        bounds: Bounds,
        clock: Callable[[], float],
        threads: int,
        workers: int,
    ) -> Compiled:
        shared = self._requests.compiled
        model = _read(path)

        def compile_for(length: int) -> Any:
            fixed = model.clone()
            fixed.reshape(dict(zip(INPUTS, ([1, length], [1, length], [1]), strict=True)))
            return _compile(fixed, HINTS[self.precision], threads, workers)

        requests: dict[int, Any] = {}

        def run(graph: Any, length: int) -> object:
            if graph is None:
                return _infer(self._requests.of(0), _blank(length))
            if id(graph) not in requests:
                requests.clear()  # of the length before
                requests[id(graph)] = graph.create_infer_request()
            return _infer(requests[id(graph)], _blank(length))

        buckets = plan_buckets(
            longest=longest,
            bounds=bounds,
            compile_for=compile_for,
            run=run,
            clock=clock,
            memory=resident_bytes,
        )
        return Compiled(shared.whole, buckets, shared.outputs, shared.pad)


def _compiled(path: Path, hint: str, pad: int, threads: int, workers: int) -> Compiled:
    model = _read(path)
    inputs = tuple(port.any_name for port in model.inputs)
    outputs = tuple(port.any_name for port in model.outputs)
    if inputs != INPUTS or outputs not in (OUTPUTS, (*OUTPUTS, *STRATA_OUTPUTS)):
        raise ExportError(
            f"{path.name} takes {inputs} and gives {outputs}, not what a bundle's graph does; export it again"
        )
    return Compiled(_compile(model, hint, threads, workers), Buckets(), outputs, pad)


def _read(path: Path) -> Any:
    return core().read_model(path)


def _compile(model: Any, hint: str, threads: int, workers: int) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads * workers,
        "NUM_STREAMS": workers,
        # Pinned threads of two processes, or of two models in one, would wait for the same core.
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, DEVICE, settings)


def _infer(request: Any, feed: Feed) -> Any:
    """Outputs by name, in memory that the next run of the request writes over: no copy in, none out."""
    return request.infer(feed, share_inputs=True, share_outputs=True)


def _blank(length: int) -> Feed:
    """A row that costs what any other of this length does."""
    row = np.ones((1, length), dtype=np.int64)
    return dict(zip(INPUTS, (row, row, np.full(1, -1, dtype=np.int64)), strict=True))
