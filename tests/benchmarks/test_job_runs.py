"""What models cost, what building a corpus takes, how long a start is: each for seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cold_start, models, rows
from benchmarks.record import processor
from stratified_models.config import VARIANTS
from stratified_models.testing import tiny_bundle
from tests.benchmarks.test_runs import record_of


def test_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether a target is missed depends on time, so its exit code is not asserted."""
    docs = tmp_path / "page.md"
    docs.write_text(f"before\n{models.MARKERS[0]}\nold\n{models.MARKERS[1]}\nafter\n", encoding="utf-8")
    brief = ["--families", "distilbert", "--rows", "1", "--length", "8", "--rounds", "1", "--no-exports"]
    models.main([*brief, "--docs", str(docs), "--out", str(tmp_path)])
    record: Any = record_of(tmp_path, "models")
    assert [row["variant"] for row in record["table"]] == list(VARIANTS)
    assert record["table"][0]["parameters_added"] == record["table"][0]["flops_added"] == 0
    for row in record["table"]:
        assert len(row["forward_seconds"]) == len(row["backward_seconds"]) == 1
        assert row["identity_error"] < 1e-4
        assert row["onnx_error"] is None
    assert (record["threads"], record["processor"]) == (1, processor())
    text = docs.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| `distilbert` |") == len(VARIANTS)
    assert "| `distilbert` | moe |" in capsys.readouterr().out


def test_a_page_without_the_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="put both lines where the table belongs"):
        models.write_docs(page, "| |")


def test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "made-up"
    source.mkdir()
    lines = [json.dumps({"text": f"good film {n}", "label": rows.LABELS[n % 3]}) for n in range(5)]
    (source / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows.main(["--data", str(tmp_path), "--rows", "60", "120", "--levels", "exact"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["rows"], one["levels"]) for one in found] == [(60, ["exact"]), (120, ["exact"])]
    assert [sum(one["kept"].values()) for one in found] == [60, 120]
    assert found[0]["file_mb"] < found[1]["file_mb"]
    assert all(one["peak_mb"] >= one["peak_before_mb"] > 0 for one in found)


def test_cold_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundle(tmp_path / "none", variant="none", seed=0)
    flags = ["--engine", "torch", "--threads", "1", "--settle-seconds", "0"]
    assert cold_start.main(["--models", str(tmp_path), "--rounds", "1", *flags]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert (found["rounds"], found["flags"]) == (1, flags)
    steps = [line.split("  ")[0] for line in table[1:]]
    assert steps[-1] == "ready"
    assert len(steps) > 2
    assert found["ready_seconds"] == pytest.approx(float(table[-1].split()[1]), abs=0.01)


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended before it was ready"):
        cold_start.one_start(tmp_path / "nowhere", ["--engine", "no-such-engine"])
