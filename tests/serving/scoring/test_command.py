"""`stratified-serve score`: real tiny bundles, shards, kills, exit codes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from serving.__main__ import main
from tests.serving import bundles
from tests.serving.files.test_run import done, kill_after, objects, table


def flags(source: Path, target: Path, *more: str) -> list[str]:
    plain = (
        f"score --models {bundles.results()} --engine torch --threads 1 --input {source} --output {target}"
    )
    return [*plain.split(), "--text-column", "body", "--id-column", "key", *more]


def test_a_file_is_scored_and_a_second_run_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = table(tmp_path / "in.csv", 50), tmp_path / "out.jsonl"
    argv = flags(source, target, "--chunk", "16", "--keep", "n")
    assert main(argv, {}) == 1
    rows = objects(target)
    assert [row["id"] for row in rows] == [f"k{n}" for n in range(50)]
    assert [row["error_reason"] for row in rows] == [None if n % 7 else "EMPTY_TEXT" for n in range(50)]
    assert {row["model"] for row in rows if row["label"]} == {"routing"}
    capsys.readouterr()
    assert main(argv, {}) == 1
    assert capsys.readouterr().err == (
        f"stratified-serve score: {target} is complete: 50 rows; nothing to do\n"
    )
    state = json.loads((tmp_path / "out.jsonl.state.json").read_text())
    assert state["made"]["engine"] == "torch"


def test_a_killed_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """It goes on with the batches it began with; another run may have measured that larger ones pay."""
    source, target = table(tmp_path / "in.csv", 1200), tmp_path / "out.parquet"
    argv = flags(source, target, "--chunk", "32")
    kill_after(320, target, [sys.executable, "-m", "serving", *argv])
    assert 320 <= done(target) < 1200
    assert main(argv, {"STRATIFIED_MODEL": ""}) == 1
    made = json.loads((tmp_path / "out.parquet.state.json").read_text())["made"]
    measured = ["--batch-tokens", str(made["batch_tokens"]), "--padding-tokens", str(made["padding_tokens"])]
    whole = flags(source, tmp_path / "whole.parquet", "--chunk", "32", *measured)
    assert main(whole, {}) == 1
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_shards_together_are_the_whole(tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", 31)
    rows = []
    for shard in ("0/3", "1/3", "2/3"):
        assert main(flags(source, tmp_path / "out.csv", "--shard", shard), {}) == 1
        path = tmp_path / f"out-0000{shard[0]}-of-00003.csv"
        rows += list(csv.DictReader(path.read_text().splitlines()))
    assert sorted(int(row["row"]) for row in rows) == list(range(1, 32))
    assert all(row["id"] == f"k{int(row['row']) - 1}" for row in rows)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--text-column", "nope"], 2, "score: "),
        (["--engine", "x"], 2, "--engine 'x'"),
        (["--model", "mars"], 3, "model 'mars' has no bundle"),
        (["--domain", "a", "--domain-column", "n"], 2, "exclude each other"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    source = table(tmp_path / "in.csv", 3)
    assert main(flags(source, tmp_path / "out.csv", *more), {}) == code
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("shard", ["3/3", "a/2", "1", "-1/2"])
def test_a_shard_that_is_none(capsys: pytest.CaptureFixture[str], shard: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["score", "--input", "a", "--output", "b", f"--shard={shard}"], {})
    assert caught.value.code == 2
    assert "give i/N with i from 0 to N-1" in capsys.readouterr().err


def test_help_names_every_exit_code() -> None:
    command = [sys.executable, "-m", "serving", "score", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "130 interrupted" in text
    assert "--shard i/N" in text
