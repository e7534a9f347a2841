"""Energy of the GPU that this process trains on, by the driver's own counter (NVML), where there is one.

It does not know what the energy was spent on. Without a GPU, the library or the counter, it says None.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


class EnergyMeter:
    """Joules since it was made. `library` is `pynvml`, or what stands in for it."""

    def __init__(self, device: str, *, library: Any = None) -> None:
        self._library = library if library is not None else _nvml(device)
        self._handle = self._open()
        self._began = self._read()

    def joules(self) -> float | None:
        """Energy in joules; None where it cannot be known."""
        now = self._read()
        return None if now is None or self._began is None else now - self._began

    def _open(self) -> Any:
        if self._library is None:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        place = visible[min(int(os.environ.get("LOCAL_RANK", "0")), len(visible) - 1)].strip()
        try:
            self._library.nvmlInit()
            if place.isdigit():
                return self._library.nvmlDeviceGetHandleByIndex(int(place))
            return self._library.nvmlDeviceGetHandleByUUID(place)
        except Exception:  # the library raises its own kinds; without an answer there is no figure
            return None

    def _read(self) -> float | None:
        if self._handle is None:
            return None
        try:
            return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000  # from mJ
        except Exception:  # not supported by this GPU
            return None


def _nvml(device: str) -> Any:
    if device != "cuda":
        return None
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None
