"""Kernels of often seen batch shapes, recorded once and played back: on a GPU small batches spend more time
on launching kernels than on computing.

Shapes are rounded up, so that few recordings serve many batches; the padding is masked like any other. What
cannot be recorded, such as a forward that waits for a number from the GPU, runs as before. It knows tensors,
and nothing of models beyond a function from tensors to tensors.
B rows, T tokens of the longest row.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GraphedForward", "rounded", "widened"]

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEP = 32  # tokens
LARGEST = 16_384  # tokens of a batch; a larger one keeps the GPU busy enough
KEPT = 64  # recordings; the one that was used least recently makes room
WARM_UP = 3  # runs before a recording: libraries allocate in their first ones

Forward = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def rounded(rows: int, tokens: int) -> tuple[int, int] | None:
    """The shape that a batch of (rows, tokens) is computed in; None: too large to gain."""
    height = next((count for count in ROWS if count >= rows), None)
    width = -(-tokens // STEP) * STEP
    return None if height is None or height * width > LARGEST else (height, width)


def widened(tensors: dict[str, Tensor], shape: tuple[int, int], *, pad: int) -> dict[str, Tensor]:
    """The batch in a larger shape: masked tokens on the right, and rows of one padding token below.

    A row without any token has no mean and no attention; one token keeps it a number.
    """
    rows, tokens = tensors["input_ids"].shape
    more, longer = shape[0] - rows, shape[1] - tokens
    mask = F.pad(tensors["attention_mask"], (0, longer, 0, more))
    mask[rows:, 0] = 1
    return {
        "input_ids": F.pad(tensors["input_ids"], (0, longer, 0, more), value=pad),
        "attention_mask": mask,
        "domain_id": F.pad(tensors["domain_id"], (0, more), value=-1),
    }


@dataclass(frozen=True, slots=True)
class Recording:
    """A graph with the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class GraphedForward:
    """Calls `forward` through recordings where it can; several threads may share it.

    A recording reads and writes memory of its own. So filling it, playing it and copying out what it wrote
    are put to the GPU in one go, under a lock; it then does them in that order, and nobody waits for it here.
    """

    def __init__(self, forward: Forward, *, device: torch.device, pad: int) -> None:
        self._forward, self._device, self._pad = forward, device, pad
        self._recordings: OrderedDict[tuple[int, int], Recording] = OrderedDict()
        self._recordable = True
        self._lock = threading.Lock()

    def __call__(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs for the rows of `tensors`, in memory of their own."""
        rows, tokens = tensors["input_ids"].shape
        shape = rounded(rows, tokens) if self._recordable else None
        if shape is None:
            return self._forward(tensors)
        widened_tensors = widened(tensors, shape, pad=self._pad)
        with self._lock:
            recording = self._recording(shape, widened_tensors)
            if recording is not None:
                for name, value in widened_tensors.items():
                    recording.inputs[name].copy_(value, non_blocking=True)
                recording.graph.replay()
                return {name: value[:rows].clone() for name, value in recording.outputs.items()}
        return self._forward(tensors)

    def _recording(self, shape: tuple[int, int], tensors: dict[str, Tensor]) -> Recording | None:
        if shape in self._recordings:
            self._recordings.move_to_end(shape)
            return self._recordings[shape]
        try:
            made = self._record(tensors)
        except RuntimeError:  # torch's own class for what a capture does not allow
            self._recordable = False
            self._recordings.clear()
            torch.cuda.synchronize(self._device)
            return None
        self._recordings[shape] = made
        if len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)
        return made

    def _record(self, tensors: dict[str, Tensor]) -> Recording:
        inputs = {name: value.clone() for name, value in tensors.items()}
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # untyped in torch
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forward(inputs)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may wait for the GPU meanwhile, which a capture of the whole process would not allow.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._forward(inputs)
        return Recording(graph, inputs, outputs)
