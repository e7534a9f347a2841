"""The processes that train together: how many, their sums and barriers, and the wish to stop that they share.

It knows torch.distributed and signals, not the Trainer and not the sweep.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks; on one rank, the tensor."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
    return value


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all ranks; on one rank, the tensor."""
    return sum_over_ranks(value) / world_size()


class StopFlag:
    """Whether this process was asked to stop, by a signal or because its supervisor is gone."""

    def __init__(self, supervisor: int | None) -> None:
        self.signalled = False
        self.supervisor = supervisor

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT only raise the flag."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True

    def raised(self) -> bool:
        """The flag, now."""
        return self.signalled or not self._supervised()

    def _supervised(self) -> bool:
        if self.supervisor is None:
            return True
        try:
            os.kill(self.supervisor, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
