"""Peers: how each is started and asked, and that only right labels count as answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import answers
from benchmarks.peers.fleet import PEERS, environment, installed

TEXTS = [f"text {place}" for place in range(10)]
LABELS = ["positive", "negative"] * 5
ANSWERS = {
    "mlserver": '{"outputs": [{"name": "label", "shape": [1, 1], "datatype": "BYTES", "data": ["LABEL"]}]}',
    "litserve": '{"label": "LABEL"}',
    "bentoml": '["LABEL"]',
    "triton": '{"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["LABEL"]}]}',
    "infinity": '{"data": [[{"score": 0.2, "label": "x"}, {"score": 0.8, "label": "LABEL"}]]}',
}


@contextmanager
def answering(said: Mapping[str, str], status: int = 200) -> Iterator[int]:
    """A server that answers each text, wherever its body has it, with what is to be said; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = next(said[text] for text in said if f'"{text}"' in body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("name", sorted(PEERS))
def test_right_labels_pass(name: str) -> None:
    told = {text: ANSWERS[name].replace("LABEL", label) for text, label in zip(TEXTS, LABELS, strict=True)}
    with answering(told) as port:
        answers.check(PEERS[name], port, TEXTS, LABELS)


def test_labels_of_other_texts_do_not_pass() -> None:
    told = {text: json.dumps({"label": label}) for text, label in zip(TEXTS, reversed(LABELS), strict=True)}
    with (
        answering(told) as port,
        pytest.raises(RuntimeError, match="answers 10 of 10 texts with another label"),
    ):
        answers.check(PEERS["litserve"], port, TEXTS, LABELS)


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        ('{"detail": "no"}', 200, r'gives no label: status 200: \{"detail": "no"\}'),
        ('{"label": "error"}', 200, "'error', which is no label"),
        ('{"label": "positive"}', 500, "gives no label: status 500"),
    ],
)
def test_an_error_does_not_pass(said: str, status: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.1)
    with answering(dict.fromkeys(TEXTS, said), status) as port, pytest.raises(RuntimeError, match=reason):
        answers.check(PEERS["litserve"], port, TEXTS, LABELS)


def test_what_was_installed_for_other_packages_is_built_anew(tmp_path: Path) -> None:
    peer = replace(PEERS["litserve"], packages=("one", "two"))
    done = tmp_path / "litserve" / ".complete"
    done.parent.mkdir()
    done.write_text("# one\n# two\none==1\n")
    assert environment(peer, tmp_path) == tmp_path / "litserve" / "bin" / "python"
    with pytest.raises(RuntimeError, match="no-such-package-of-ours"):
        environment(replace(peer, packages=("--no-index", "no-such-package-of-ours")), tmp_path)


def test_versions_are_those_that_were_installed(tmp_path: Path) -> None:
    peer = replace(PEERS["litserve"], packages=("one==1",))
    assert installed(peer, tmp_path) == {}
    (tmp_path / "litserve").mkdir()
    told = "# one==1\nnumpy==2.0.0\none==1\nmine @ file:///home/me/mine\n"
    (tmp_path / "litserve" / ".complete").write_text(told, encoding="utf-8")
    assert installed(peer, tmp_path) == {"numpy": "2.0.0", "one": "1"}


def test_an_environment_has_its_startup_file(tmp_path: Path) -> None:
    python = environment(replace(PEERS["triton"], packages=("--no-index", "pip")), tmp_path)
    asked = "import sitecustomize; print(sitecustomize.tracker._lock._recursion_count())"
    if "_recursion_count" not in Path(resource_tracker.__file__).read_text(encoding="utf-8"):
        asked = "import sitecustomize; print(0)"
    assert subprocess.check_output([python, "-c", asked], text=True) == "0\n"


def test_a_server_that_does_not_start_is_named_with_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = replace(PEERS["litserve"], command=lambda *_: ["/bin/sh", "-c", "echo no model; echo ===; exit 3"])
    monkeypatch.setitem(PEERS, "litserve", peer)
    monkeypatch.setattr(peers, "environment", lambda *_: Path("python"))
    reason = r"ended with 3 before it listened.*log: no model"
    with (
        pytest.raises(RuntimeError, match=reason),
        peers.served("litserve", 1, tmp_path, tmp_path),
    ):
        pass
