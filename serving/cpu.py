"""How many cores this process may really use: the container's quota and the affinity mask, not the host's
cores.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the control group grants, version 2 or 1; None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 and period_us > 0 else None


def available_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores for compute threads, at least one; half a core more than a whole number counts as one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota(root)
    return max(1, min(allowed, allowed if granted is None else math.floor(granted + 0.5)))
