"""A file through a real server into a file: in order, once each, whatever breaks on the way."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.classify import BAD_INPUT, GOOD, SOME_FAILED, main
from serving.files.progress import Silence, Tqdm, open_bar
from tests.serving.conftest import Running, Start
from tests.serving.test_lane import until


def table(path: Path, count: int) -> Path:
    """Every seventh text is empty."""
    lines = [f"k{n},{'word ' * (n % 7)}x{n if n % 7 else ''},{n}" for n in range(count)]
    path.write_text("key,body,n\n" + "\n".join(line.replace(",x,", ",,") for line in lines) + "\n")
    return path


def flags(running: Running, source: Path, target: Path, *more: str) -> list[str]:
    plain = f"--target {running.target} --input {source} --output {target} --text-column body --id-column key"
    return [*plain.split(), *more]


def done(target: Path) -> int:
    """How many rows the state names."""
    state = target.with_name(f"{target.name}.state.json")
    return int(json.loads(state.read_text())["rows"]) if state.exists() else 0


def kill_after(rows: int, target: Path, command: list[str]) -> None:
    """Run a command, and kill it when so many rows are done."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while done(target) < rows and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()


def objects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_file_becomes_a_file_in_its_order(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await start()
    source, target = table(tmp_path / "in.csv", 1000), tmp_path / "out.jsonl"
    argv = flags(running, source, target, "--keep", "n", "--domain", "imdb")
    assert await asyncio.to_thread(main, argv) == SOME_FAILED
    rows = objects(target)
    assert [row["id"] for row in rows] == [f"k{n}" for n in range(1000)]
    assert [row["n"] for row in rows] == [str(n) for n in range(1000)]
    assert [row["error_reason"] for row in rows] == [None if n % 7 else "EMPTY_TEXT" for n in range(1000)]
    assert {row["domain"] for row in rows if row["label"]} == {"imdb"}
    told = capsys.readouterr()
    assert told.err == f"stratified-classify: {target}: 1000 rows, 143 of them with an error\n"
    assert await asyncio.to_thread(main, argv) == SOME_FAILED
    assert "is complete: 1000 rows; nothing to do" in capsys.readouterr().err


async def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(start: Start, tmp_path: Path) -> None:
    running = await start()
    source = table(tmp_path / "in.csv", 2500)
    assert await asyncio.to_thread(main, flags(running, source, tmp_path / "whole.csv")) == SOME_FAILED
    target = tmp_path / "out.csv"
    for least in (256, 1000):
        command = [sys.executable, "-m", "serving.classify", *flags(running, source, target)]
        await asyncio.to_thread(kill_after, least, target, command)
        assert least <= done(target) < 2500
        assert not target.exists()
    assert await asyncio.to_thread(main, flags(running, source, target)) == SOME_FAILED
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


async def test_a_crashing_engine_costs_time_and_no_row(start: Start, tmp_path: Path) -> None:
    running = await start()
    source, target = table(tmp_path / "in.csv", 600), tmp_path / "out.jsonl"
    running.engine.gate.clear()
    work = asyncio.create_task(asyncio.to_thread(main, flags(running, source, target)))
    await until(lambda: running.engine.started == 1)
    running.engine.die.set()
    running.engine.gate.set()
    await until(lambda: running.sample("stratified_model_ready", model="none") == 0)
    running.engine.die.clear()
    assert await work == SOME_FAILED
    reasons = [row["error_reason"] for row in objects(target)]
    assert reasons == [None if n % 7 else "EMPTY_TEXT" for n in range(600)]


async def test_a_text_that_no_message_holds_costs_nobody_else(start: Start, tmp_path: Path) -> None:
    running = await start(max_message_bytes=2048)
    source = tmp_path / "in.txt"
    source.write_text("good\n" + "x" * 5000 + "\ngood\n")
    target = tmp_path / "out.jsonl"
    argv = ["--target", running.target, "--input", str(source), "--output", str(target)]
    assert await asyncio.to_thread(main, argv) == SOME_FAILED
    assert [row["error_reason"] for row in objects(target)] == [None, "TEXT_TOO_LONG", None]


async def test_what_cannot_be_done_is_one_line(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await start()
    source, target = table(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    for more, message in (
        (["--explain"], "--explain has no place in the columns of a file"),
        (["--domain", "a", "--domain-column", "n"], "--domain and --domain-column exclude each other"),
        (["--keep", "nope"], "set --keep to one of: key, body, n"),
    ):
        assert await asyncio.to_thread(main, flags(running, source, target, *more)) == BAD_INPUT
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
    assert await asyncio.to_thread(main, ["a", "--output", str(target)]) == BAD_INPUT
    assert await asyncio.to_thread(main, flags(running, source, target)) == SOME_FAILED
    other = table(tmp_path / "other.csv", 4)
    assert await asyncio.to_thread(main, flags(running, other, target)) == BAD_INPUT
    assert "is of another input; add --overwrite" in capsys.readouterr().err
    assert await asyncio.to_thread(main, flags(running, other, target, "--overwrite")) == SOME_FAILED


async def test_a_pipe_is_written_but_never_resumed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()
    target = tmp_path / "out.jsonl"
    argv = ["--target", running.target, "--input", "-", "--output", str(target)]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\ntwo\n")))
    assert await asyncio.to_thread(main, argv) == GOOD
    assert [row["row"] for row in objects(target)] == [1, 3]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    assert await asyncio.to_thread(main, argv) == BAD_INPUT


def test_the_bar_is_drawn_for_a_terminal_alone() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    quiet = open_bar("a", size=10, unit="B", stream=plain)
    assert isinstance(quiet, Silence)
    quiet.show(position=1, rows=1, failed=0)
    quiet.close()
    assert plain.getvalue() == ""
    bar = open_bar("a.csv", size=10, unit="B", stream=terminal)
    assert isinstance(bar, Tqdm)
    bar.show(position=10, rows=3, failed=1)
    bar.close()
    assert "a.csv: 100%" in terminal.getvalue()
