"""The peers: what each one is installed as, how it is started, and how it is asked.

Each has an environment of its own below a cache folder, built once. It knows no measurement.
Settings are those that a peer's documentation names for throughput on one core; none logs calls, as ours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "Peer", "environment", "installed"]

HERE = Path(__file__).resolve().parent
# The very engine and tokenizer that our service runs; numpy is left to the peer, which may need an older one.
COMMON = (f"onnxruntime=={version('onnxruntime')}", f"tokenizers=={version('tokenizers')}", "numpy")
V2 = '{"inputs": [{"name": "text", "shape": [SHAPE], "datatype": "BYTES", "data": [TEXT]}]}'


@dataclass(frozen=True)
class Peer:
    """One rival server.

    Attributes:
        packages: what is installed.
        command: from (python, port, most texts of a batch, scratch folder) to what starts it.
        path, body: where and with what JSON a text is asked.
        label: from the JSON of an answer to the label in it; any exception: there is none.
        model: what it runs: the bundle's ONNX file, or a transformers classifier of its shape.
        startup: a file beside this one that every interpreter of the environment reads as it starts.
    """

    name: str
    packages: Sequence[str]
    command: Callable[[Path, int, int, Path], list[str]]
    path: str
    body: str
    label: Callable[[Any], str]
    model: str = "bundle"
    startup: str = ""


def _mlserver(python: Path, port: int, batch: int, scratch: Path) -> list[str]:
    folder = scratch / f"mlserver-{port}"
    folder.mkdir()
    # No worker processes: with one core they would only add a hop. No metrics server, no gzip: nobody asks.
    settings = {
        "http_port": port, "grpc_port": port + 1, "host": "127.0.0.1", "parallel_workers": 0, "debug": False,
        "metrics_endpoint": None, "metrics_dir": str(folder), "gzip_enabled": False,
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
    # The torch engine: the one on ONNX Runtime neither batches nor truncates what is to be classified.
    return [
        str(python.parent / "infinity_emb"), "v2", "--model-id", str(scratch / "transformers"), "--port",
        str(port), "--host", "127.0.0.1", "--device", "cpu", "--batch-size", str(max(1, batch)),
        "--engine", "torch", "--dtype", "float32", "--bettertransformer", "--served-model-name", "plain",
        "--log-level", "warning",
    ]  # fmt: skip


def _of_output(answer: Any) -> str:
    return str(answer["outputs"][0]["data"][0])


def _best_score(answer: Any) -> str:
    return str(max(answer["data"][0], key=lambda each: float(each["score"]))["label"])


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "mlserver",
            ("mlserver==1.7.1", *COMMON),
            _mlserver,
            "/v2/models/plain/infer",
            V2.replace("SHAPE", "1"),
            _of_output,
        ),
        Peer(
            "litserve",
            ("litserve==0.2.19", *COMMON),
            _script("serve_litserve.py"),
            "/predict",
            '{"text": TEXT}',
            lambda answer: str(answer["label"]),
        ),
        Peer(
            "bentoml",
            ("bentoml==1.4.40", *COMMON),
            _bentoml,
            "/classify",
            '{"texts": [TEXT]}',
            lambda answer: str(answer[0]),
        ),
        Peer(
            "triton",
            ("nvidia-pytriton==0.7.0", *COMMON),
            _script("serve_triton.py"),
            "/v2/models/plain/infer",
            V2.replace("SHAPE", "1, 1"),
            _of_output,
            startup="triton_startup.py",
        ),
        Peer(
            "infinity",
            # BetterTransformer, on by default and its fastest way on a processor, left optimum with 2.0 and
            # refuses transformers from 4.49 on. torch is ours, so that the same kernels compute: its version
            # names the CPU build where ours is one, else the far larger one for GPUs would come.
            (
                "infinity-emb[torch,server]==0.0.78",
                "optimum==1.27.0",
                "transformers==4.48.3",
                f"torch=={version('torch')}",
            ),
            _infinity,
            "/classify",
            '{"model": "plain", "input": [TEXT]}',
            _best_score,
            "transformers",
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
    # Another list than last time: built anew.
    asked = "".join(f"# {name}\n" for name in (*peer.packages, peer.startup) if name)
    if done.exists() and done.read_text(encoding="utf-8").startswith(asked):
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
        reasons = [line for line in lines if line.startswith("ERROR")] or lines
        raise RuntimeError(f"{peer.name} cannot be installed here: {reasons[-1]}")
    if peer.startup:
        [packages] = folder.glob("lib/python*/site-packages")
        shutil.copy(HERE / peer.startup, packages / "sitecustomize.py")
    frozen = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    done.write_text(asked + frozen, encoding="utf-8")
    return python


def installed(peer: Peer, cache: Path) -> dict[str, str]:
    """Every package of the peer's environment and its version, as they were installed; none: not built."""
    done = cache / peer.name / ".complete"
    if not done.exists():
        return {}
    lines = done.read_text(encoding="utf-8").splitlines()
    frozen = [line.partition("==") for line in lines if line[:1] not in ("", "#")]
    return {name: number for name, equal, number in frozen if equal}  # others name a folder, and no version
