"""Cores: what a process and what it starts may run on."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.processes import cores, pinned

ALLOWED = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]


def test_what_is_started_inside_keeps_to_the_cores() -> None:
    before = os.sched_getaffinity(0)
    one, _ = cores()
    with pinned(one):
        assert subprocess.check_output(ALLOWED, text=True).strip() == str(sorted(one))
    assert os.sched_getaffinity(0) == before


def test_without_cores_nothing_is_pinned() -> None:
    before = os.sched_getaffinity(0)
    with pinned(None):
        assert subprocess.check_output(ALLOWED, text=True).strip() == str(sorted(before))
