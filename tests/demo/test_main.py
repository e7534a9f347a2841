"""The command line: refusals in one line, and the whole thing as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo import __main__ as program


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = program.main(argv)
    return code, capsys.readouterr().err


def test_a_missing_folder_is_refused_with_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = refused(capsys, "--models", "nowhere")
    assert (code, told.count("\n")) == (3, 1)
    assert "make sweep" in told


def test_flags_for_a_service_that_is_not_its_own_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--target", "x:1", "--serve-flag=--threads=1")[0] == 2


def test_without_gradio_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, told = refused(capsys, "--target", "x:1")
    assert (code, "stratified-sentiment[demo]" in told) == (2, True)


def test_examples_that_are_no_good_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("review\nfine\n", encoding="utf-8")
    code, told = refused(capsys, "--target", "x:1", "--examples", str(path))
    assert (code, "no column text" in told) == (2, True)


def test_examples_of_a_file_stand_beside_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,domain\nthey fit,shoes\n", encoding="utf-8")
    found = program.examples(path)
    assert found["shoes"] == ("they fit",)
    assert "imdb" in found


def test_it_says_where_it_is_and_stops_on_a_signal(target: str) -> None:
    command = [sys.executable, "-m", "demo", "--target", target, "--page-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert line.startswith("page: http://127.0.0.1:")
    assert target in line


def test_a_service_that_cannot_start_ends_the_page_with_its_code(tmp_path: Path) -> None:
    flags = ["--serve-flag=--probe-port=0", "--serve-flag=--metrics-port=0"]
    assert program.main(["--models", str(tmp_path), "--port", "0", "--page-port", "0", *flags]) == 3
