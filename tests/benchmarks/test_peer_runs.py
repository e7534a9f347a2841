"""The comparison with peers from end to end, with our own server and a stand-in for a peer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers.fleet import PEERS
from tests.benchmarks.test_runs import record_of

ASKED = ["--ours", "onnx", "--shape", "tiny", "--texts", "12", "--rounds", "1"]
OVERLOADS = ["150% of peak", "300% of peak"]


@pytest.fixture
def _standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`standin` and `broken` beside the peers; both take this interpreter for their environment."""

    def command(module: str) -> Any:
        return lambda python, *_: [str(python), "-m", module]

    for name, module in (("standin", "tests.benchmarks.standin"), ("broken", "no_such_module_of_ours")):
        monkeypatch.setitem(PEERS, name, replace(PEERS["litserve"], name=name, command=command(module)))
    monkeypatch.setattr(peers, "environment", lambda *_: Path(sys.executable))


@pytest.mark.usefixtures("_standin")
def test_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "cache"
    (cache / "standin").mkdir(parents=True)
    (cache / "standin" / ".complete").write_text("# packages\nnumpy==2.0.0\n", encoding="utf-8")
    line = [*ASKED, "--peers", "standin", "broken", "--callers", "2", "4", "--cache", str(cache)]
    assert peers.main([*line, "--out", str(tmp_path)]) == 0
    record: Any = record_of(tmp_path, "peers")
    assert record["rounds_of"].keys() == {"ours onnx", "standin, batch 32", "standin, batch 1"}
    for [cells] in record["rounds_of"].values():
        assert list(cells) == ["2 callers", "4 callers", *OVERLOADS]
        for name, cell in cells.items():
            kept = cell["latencies_ms"] + cell.get("not_answered_ms", [])
            assert len(kept) + cell.get("failed", 0) == 12, name
        assert all(cells[name]["failed"] == 0 for name in ("2 callers", "4 callers"))
        assert [cells[name]["offered"] > 0 for name in OVERLOADS] == [True, True]
    ratios = [
        row["ours_over_it"]
        for row in record["table"]
        if "callers" in row["way"] and "standin" in row["server"]
    ]
    assert len(ratios) == 4
    assert min(ratios) > 0
    assert record["absent"].keys() == {"broken, batch 32", "broken, batch 1"}
    assert "No module named no_such_module_of_ours" in record["absent"]["broken, batch 1"]
    assert record["peer_versions"] == {"standin": {"numpy": "2.0.0"}, "broken": {}}
    assert record["threads"] == 1
    assert "standin, batch 1" in capsys.readouterr().out


def test_our_own_server_alone_and_not_flooded(tmp_path: Path) -> None:
    line = [*ASKED, "--peers", "--callers", "2", "--no-overload", "--cache", str(tmp_path)]
    assert peers.main([*line, "--out", str(tmp_path)]) == 0
    record: Any = record_of(tmp_path, "peers")
    assert [(row["server"], row["way"]) for row in record["table"]] == [("ours onnx", "2 callers")]
    assert (record["absent"], record["peer_versions"]) == ({}, {})
