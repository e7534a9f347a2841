"""A checkpoint by hub id, from a mirror on loopback that answers as the hub does; then without it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from stratified_models.testing import tiny_backbone

REPOSITORY, COMMIT = "acme/tiny", "0123456789abcdef0123456789abcdef01234567"
LOAD = f"""
from stratified_models import load_pretrained, load_tokenizer
model, report = load_pretrained({REPOSITORY!r}, revision={COMMIT!r}, variant="routing", labels=("a", "b"),
                                domains=("x",), domain_labels=[[0, 1]], max_length=32, seed=0, gate_dim=16)
tokenizer = load_tokenizer({REPOSITORY!r}, revision={COMMIT!r}, max_length=32)
print(report.backbone_sha256, len(tokenizer("good film")["input_ids"]))
"""


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """Address of a server that holds one repository: HEAD and GET of files at a commit, nothing else."""
    folder = tiny_backbone(tmp_path / "repository", layers=3)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            body = self.answer()
            self.wfile.write(body)

        def answer(self) -> bytes:
            name = self.path.partition(f"/{REPOSITORY}/resolve/{COMMIT}/")[2]
            there = bool(name) and (folder / name).is_file()
            body = (folder / name).read_bytes() if there else b""
            self.send_response(200 if there else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            if there:
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def load(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load the repository in a process of its own: the library reads its environment at import."""
    hidden = ("HF_", "TRANSFORMERS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **variables}
    return subprocess.run(
        [sys.executable, "-c", LOAD],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_hub_id_loads_and_is_kept_for_work_without_a_network(mirror: str, tmp_path: Path) -> None:
    online = load(tmp_path / "home", HF_ENDPOINT=mirror)
    assert online.returncode == 0, online.stderr[-2000:]
    offline = load(tmp_path / "home", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr[-2000:]
    assert offline.stdout == online.stdout


def test_a_hub_id_that_was_never_fetched_is_refused_without_a_network(tmp_path: Path) -> None:
    refused = load(tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert "BackboneError" in last
    assert REPOSITORY in last
