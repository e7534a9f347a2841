"""The program as its operator runs it: a real process, a tiny real bundle, signals and exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.__main__ import main
from serving.client import Client, Failure
from serving.types import Item
from tests.serving.bundles import copied, results

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def serving(root: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A server process that is ready, and its ports."""
    command = [sys.executable, "-m", "serving", "--models", str(root), "--port", "0", "--probe-port", "0"]
    command += ["--metrics-port", "0", "--threads", "1", "--log-format", "json", *flags]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ports: dict[str, int] = {}
    try:
        for line in process.stderr:
            entry = json.loads(line)
            ports.update({key: value for key, value in entry.items() if key.endswith("port")})
            if entry["event"] == "ready":
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, ports
    finally:
        process.kill()
        process.wait(10)


def test_it_serves_drains_on_sigterm_and_exits_with_zero() -> None:
    with serving(results(), "--settle-seconds", "0.5", "--load", "all") as (process, ports):
        with Client(f"127.0.0.1:{ports['port']}") as client:
            answers = client.classify_batch([Item("The plot drags."), Item(""), Item("good", "mars")])
            assert [isinstance(answer, Failure) for answer in answers] == [False, True, False]
            assert client.classify("good", model="none").model.name == "none"
            process.send_signal(signal.SIGTERM)
            assert client.classify("good").model.name == "routing", "answered while endpoints settle"
        assert process.wait(20) == 0


WITHOUT_WEIGHTS = """
import asyncio, pathlib, sys
from prometheus_client import CollectorRegistry
from serving.running import serve
from serving.engines.fake import FakeSource
from serving.settings import Settings
ports = {"port": 0, "probe_port": 0, "metrics_port": 0}
settings = Settings(models=pathlib.Path("x"), threads=1, log_format="json", settle_seconds=60, **ports)
asyncio.run(serve(settings, registry=CollectorRegistry(), source=FakeSource()))
"""


def test_control_c_exits_with_zero_without_settling() -> None:
    command = [sys.executable, "-c", WITHOUT_WEIGHTS]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "ready" in line and "default" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(20) == 0


def test_check_verifies_every_bundle(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = copied(tmp_path)
    assert main(["check", str(root / "none")]) == 0
    assert capsys.readouterr().out.startswith("none: good: version 1, sha256 ")
    (root / "none" / "config.json").write_text("{}")
    (root / "routing" / "tokenizer.json").unlink()
    assert main(["check", str(root)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["BAD", "BAD"]
    assert "config.json" in lines[0]
    assert "tokenizer.json" in lines[1]


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        ([], 2, "--models is missing"),
        (["--models", "x", "--port", "99999"], 2, "--port '99999'"),
        (
            ["serve", "--models", "/nowhere", "--port", "0", "--probe-port", "0", "--metrics-port", "0"],
            3,
            "/nowhere",
        ),
        (["check", "/nowhere"], 3, "/nowhere is not a folder"),
    ],
)
def test_what_cannot_run_is_one_line_and_its_own_exit_code(
    capsys: pytest.CaptureFixture[str], flags: list[str], code: int, text: str
) -> None:
    assert main(flags, environment={"STRATIFIED_LOG_FORMAT": "json"}) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stratified-serve:")]
    assert len(lines) == 1
    assert text in lines[0]


def test_a_port_in_use_exits_with_four(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        flags = ["--models", "x", "--port", str(port), "--probe-port", "0", "--metrics-port", "0"]
        assert main(flags, environment={}) == 4
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stratified-serve")]
    assert f"127.0.0.1:{port}" in line


def test_a_flag_that_does_not_exist_exits_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--nonsense"], environment={})
    assert caught.value.code == 2


@pytest.mark.parametrize("program", ["serving.__main__", "serving.classify"])
def test_help_needs_no_model_library(program: str) -> None:
    code = (
        f"import sys\nfrom {program} import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ, check=True, capture_output=True
    )
