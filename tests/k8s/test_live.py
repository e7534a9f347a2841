"""The live check itself: a real Prometheus, the real service under load, the real job while it trains."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from k8s.checks import live, monitoring, pictures, queries
from k8s.checks.engine import CheckError

needs_prometheus = pytest.mark.skipif(
    not all(map(shutil.which, ("prometheus", "promtool"))), reason="prometheus is not on the path"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_prometheus
def test_every_query_has_data_while_the_service_is_loaded_and_the_job_trains(tmp_path: Path) -> None:
    lines = list(monitoring.check(tmp_path / "run", tmp_path / "pictures"))
    assert any(f"{len(queries.all_queries())} queries" in line for line in lines)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "dashboard-service.png",
        "dashboard-training.png",
    }


def ended(tmp_path: Path, code: int, expected: int, *, checked: bool) -> None:
    """A child that is gone before anybody asked it to go."""
    command = ["bash", "-c", f"echo gone; exit {code}"]
    with live.process(command, tmp_path / "log", expected=expected) as child:
        child.process.wait(timeout=30)
        if checked:
            child.check()


def test_a_child_that_has_ended_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"ended in 7 while it should run: .*gone"):
        ended(tmp_path, 7, 7, checked=True)


def test_a_child_that_ends_otherwise_than_it_must_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"ended in 3 on SIGTERM, not in 0"):
        ended(tmp_path, 3, 0, checked=False)


def test_a_legend_is_filled_in_as_grafana_does() -> None:
    assert pictures.legend("p50 {{a}} {{b}}", {"a": "x"}) == "p50 x"
    assert pictures.legend("{{a}}", {}) == "value"
