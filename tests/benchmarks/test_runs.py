"""Each benchmark for seconds, as a user starts it: it still works, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engines, gpu, learning, server, strata, training
from benchmarks.__main__ import BRIEF, RUNS
from benchmarks.peers import __main__ as peers
from benchmarks.peers.fleet import HERE, PEERS, environment
from tests.trainer_job.tiny import make_tiny


def record_of(folder: Path, benchmark: str) -> dict[str, object]:
    [path] = folder.glob(f"{benchmark}-*.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_the_brief_run_covers_the_short_one() -> None:
    assert BRIEF.keys() == RUNS.keys()


def test_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engines.main([*BRIEF["engines"], "--out", str(tmp_path)]) == 0
    table = record_of(tmp_path, "engines")["table"]
    assert isinstance(table, list)
    assert {row["engine"] for row in table} >= {"pipeline", "torch fp32", "onnx fp32", "openvino fp32"}
    assert "openvino int8 does not take part" in capsys.readouterr().err


def test_strata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strata, "VARIANTS", ("none", "routing"))
    assert strata.main([*BRIEF["strata"], "--out", str(tmp_path)]) == 0
    table = record_of(tmp_path, "strata")["table"]
    assert isinstance(table, list)
    assert [(row["variant"], row["bound"]) for row in table] == [("none", 0.75), ("routing", 0.75)]
    assert table[0]["share_of_none"] == 1.0


def test_batches_keep_to_the_budget() -> None:
    from serving.engines.fake import FakeEncoder

    texts = ["one two three", "one", "a b c d e f", "x y"]
    batches = strata.batches_of(texts, FakeEncoder(), budget=12)
    sizes = [[len(item.ids) for item in batch] for batch in batches]
    assert [size for batch in sizes for size in batch] == sorted(size for batch in sizes for size in batch)
    assert all(max(batch) * len(batch) <= 12 or len(batch) == 1 for batch in sizes)


def test_learning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On made-up rows whose words tell the label, both ways learn it."""
    config = make_tiny(tmp_path).yaml(tmp_path / "sweep")
    asked = ["--config", str(config), "--seeds", "2", "--length", "32", "--epochs", "20", "--rate", "0.003"]
    assert learning.main([*asked, "--threads", "1", "--out", str(tmp_path / "out")]) == 0
    table = record_of(tmp_path / "out", "learning")["table"]
    assert isinstance(table, list)
    assert {row["way"] for row in table} >= {"plain", "grouped, fp32"}
    assert all(row["accuracy"] > 0.6 and len(row["accuracies"]) == 2 for row in table)
    assert table[0]["wall"] == table[0]["cpu"] == 1.0
    assert "as fast as plain" in capsys.readouterr().out


def test_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main([*BRIEF["server"], "--out", str(tmp_path)]) == 0
    record = record_of(tmp_path, "server")
    assert record["threads"] == server.THREADS
    assert isinstance(record["null_per_second"], float)
    table = record["table"]
    assert isinstance(table, list)
    assert [row["way"] for row in table] == ["alone", "2 callers", "one stream"]
    assert "the load alone carries" in capsys.readouterr().out


def test_training(tmp_path: Path) -> None:
    assert training.main([*BRIEF["training"], "--out", str(tmp_path)]) == 0
    table = record_of(tmp_path, "training")["table"]
    assert isinstance(table, list)
    assert table[0]["times_plain"] == 1.0


def test_gpu_says_why_it_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "skipped: torch sees no GPU on this machine\n"


def test_a_peer_that_cannot_be_installed_says_why(tmp_path: Path) -> None:
    from dataclasses import replace

    peer = replace(PEERS["litserve"], packages=("--no-index", "no-such-package-of-ours"))
    with pytest.raises(RuntimeError, match=r"litserve cannot be installed here: .*no-such-package-of-ours"):
        environment(peer, tmp_path)


def test_every_peer_has_its_command(tmp_path: Path) -> None:
    python = Path("/env/bin/python")
    for port, peer in enumerate(PEERS.values(), start=1):
        command = peer.command(python, port, 32, tmp_path)
        assert command[0].startswith("/env/bin/")
        for part in command:
            assert not part.startswith(str(HERE)) or Path(part).exists()
        assert "TEXT" in peer.body


def test_ratios_over_peers() -> None:
    rounds = [{"8 callers": {"per_second": 40.0}, "150% of peak": {"in_time_per_second": 38.0}}]
    other = [{"8 callers": {"per_second": 20.0}, "150% of peak": {"in_time_per_second": 5.0}}]
    rows = peers.table({"ours onnx": rounds, "litserve, batch 1": other})
    assert [row.get("ours_over_it") for row in rows] == [None, None, 2.0, 7.6]
    assert [row.get("share_of_peak") for row in rows] == [None, 0.95, None, 0.25]
