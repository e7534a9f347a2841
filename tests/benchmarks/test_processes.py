"""Cores: what a process and what it starts may run on; ports that servers are given."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from benchmarks.processes import PORTS, cores, free_ports, pinned

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


def test_free_ports_are_different_and_below_those_that_the_kernel_gives() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert set(ports) <= set(PORTS)


def test_ports_that_are_taken_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        monkeypatch.setattr("benchmarks.processes.PORTS", range(port, port + 1))
        with pytest.raises(RuntimeError, match="only 0 of 1 ports are free"):
            free_ports(1)
