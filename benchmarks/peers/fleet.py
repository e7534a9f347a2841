"""The peers: what each one is installed as, how it is started, and how it is asked.

Each has an environment of its own below a cache folder, built once. It knows no measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Peer", "environment"]

HERE = Path(__file__).resolve().parent
COMMON = ("onnxruntime", "tokenizers", "numpy")
V2 = '{"inputs": [{"name": "text", "shape": [SHAPE], "datatype": "BYTES", "data": [TEXT]}]}'


@dataclass(frozen=True)
class Peer:
    """One rival server.

    Attributes:
        packages: what is installed.
        command: from (python, port, most texts of a batch, scratch folder) to what starts it.
        path, body: where and with what JSON a text is asked.
    """

    name: str
    packages: Sequence[str]
    command: Callable[[Path, int, int, Path], list[str]]
    path: str
    body: str


def _mlserver(python: Path, port: int, batch: int, scratch: Path) -> list[str]:
    folder = scratch / f"mlserver-{port}"
    folder.mkdir()
    settings = {
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1",
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    model = {"name": "plain", "implementation": "mlserver_runtime.Plain", "max_batch_size": batch,
             "max_batch_time": 0.005 if batch > 1 else 0}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(python.parent / "mlserver"), "start", str(folder)]


def _script(name: str) -> Callable[[Path, int, int, Path], list[str]]:
    return lambda python, port, batch, scratch: [str(python), str(HERE / name)]


def _bentoml(python: Path, port: int, batch: int, scratch: Path) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(HERE)]
    return [str(python), "-m", "bentoml", "serve", "serve_bentoml:Plain", *place]


def _infinity(python: Path, port: int, batch: int, scratch: Path) -> list[str]:
    return [
        str(python.parent / "infinity_emb"), "v2", "--model-id", str(scratch / "transformers"), "--port",
        str(port), "--host", "127.0.0.1", "--device", "cpu", "--batch-size", str(max(1, batch)),
        "--engine", "torch", "--no-bettertransformer", "--served-model-name", "plain",
    ]  # fmt: skip


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "mlserver", ("mlserver", *COMMON), _mlserver, "/v2/models/plain/infer", V2.replace("SHAPE", "1")
        ),
        Peer("litserve", ("litserve", *COMMON), _script("serve_litserve.py"), "/predict", '{"text": TEXT}'),
        Peer("bentoml", ("bentoml", *COMMON), _bentoml, "/classify", '{"texts": [TEXT]}'),
        Peer(
            "triton",
            ("nvidia-pytriton", *COMMON),
            _script("serve_triton.py"),
            "/v2/models/plain/infer",
            V2.replace("SHAPE", "1, 1"),
        ),
        Peer(
            "infinity",
            ("infinity-emb[torch,server]", "transformers<5", *COMMON),
            _infinity,
            "/classify",
            '{"model": "plain", "input": [TEXT]}',
        ),
    )
}


def environment(peer: Peer, cache: Path) -> Path:
    """The interpreter of the peer's environment, which is built if it is not there yet.

    Raises:
        RuntimeError: it cannot be installed here; the message ends with pip's own reason.
    """
    folder = cache / peer.name
    python, done = folder / "bin" / "python", folder / ".complete"
    if done.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    found = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        lines = found.stderr.strip().splitlines() or ["pip gave no reason"]
        raise RuntimeError(f"{peer.name} cannot be installed here: {lines[-1]}")
    frozen = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    done.write_text(frozen, encoding="utf-8")
    return python
