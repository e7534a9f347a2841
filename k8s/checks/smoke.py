"""Real work inside the images, hardened: a tiny sweep on two processes, stopped, resumed, then served.

It knows the commands, exit codes and files that a user meets; it does not know how images are built.
Everything is written below one scratch folder, which stands for the volume.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from k8s.checks.engine import CheckError, Engine

GRACE = 120
NAMES = {"train": "stratified-check-train", "serve": "stratified-check-serve"}
ROWS = 96
DOMAINS = {"days": ("negative", "neutral", "positive"), "films": ("negative", "positive")}
SENTENCES = {
    "positive": "a good and happy day with {} , what a fine story , number {}",
    "negative": "a bad and sad day with {} , what a poor story , number {}",
    "neutral": "a day with {} , it was a story , number {}",
}
METRICS = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics', timeout=5).read().decode())"
)
BACKBONE = "import sys; from stratified_models.testing import tiny_backbone; tiny_backbone(sys.argv[1])"


@dataclass(frozen=True)
class Volume:
    """Folders below the scratch folder, as the job sees them."""

    root: Path

    def make(self) -> None:
        """Creates what a run writes to, open to any user, as a volume with a group would be."""
        for name in ("results", "logs", "cache", "input"):
            folder = self.root / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)

    def options(self) -> list[str]:
        """Mounts of the job."""
        mounts = {"results": "/app/results", "logs": "/app/logs", "cache": "/cache", "input": "/input"}
        return [part for name, to in mounts.items() for part in ("--volume", f"{self.root / name}:{to}")]

    @property
    def sweep(self) -> Path:
        """The folder of the sweep's results."""
        return self.root / "results" / "hf_trainer_stratified"

    def status(self) -> str:
        """What results.json says of the sweep. Raises CheckError when it is not there."""
        path = self.sweep / "results.json"
        if not path.is_file():
            raise CheckError(f"{path.name} was not written")
        return str(json.loads(path.read_text(encoding="utf-8"))["status"])


def write_input(volume: Volume, variants: Sequence[str], *, place: Path = Path("/input")) -> None:
    """A few hundred made-up rows of two domains and a configuration of some seconds a variant.

    `place` is where the job will find the volume's folder `input`.
    """
    domains = {}
    for name, labels in DOMAINS.items():
        for split, offset in (("train", 0), ("validation", 10_000), ("test", 20_000)):
            rows = [
                {"text": SENTENCES[label].format(name, offset + number), "label": label}
                for number in range(ROWS)
                for label in labels
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (volume.root / "input" / f"{name}-{split}.jsonl").write_text(text, encoding="utf-8")
        domains[name] = {
            "source": {
                "kind": "files",
                "splits": {split: f"{name}-{split}.jsonl" for split in ("train", "validation", "test")},
            },
            "label_map": {label: label for label in labels},
            "labels": list(labels),
        }
    config = {
        "variants": list(variants),
        "model": {"backbone": str(place / "backbone"), "max_length": 32, "strata": 4, "gate_dim": 8},
        "data": {"root": str(place), "domains": domains, "train_samples": None},
        "training": {"epochs": 4, "batch_size": 16, "log_every": 1},
        "hardware": {"processes": 2, "device": "cpu", "grace_seconds": 60},
    }
    (volume.root / "input" / "sweep.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def wait_for(what: str, seen: Callable[[], bool], *, seconds: float) -> float:
    """Looks twice a second until `seen`; the seconds that it took. Raises CheckError after `seconds`."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if seen():
            return time.monotonic() - start
        time.sleep(0.5)
    raise CheckError(f"{what} did not come within {seconds:.0f} s")


def _stop(engine: Engine, name: str, expected: int) -> float:
    """Stops a container with SIGTERM and compares its exit code; the seconds that it took."""
    start = time.monotonic()
    engine.call("stop", "--time", str(GRACE), name)
    seconds = time.monotonic() - start
    code = int(engine.call("inspect", "--format", "{{.State.ExitCode}}", name).stdout)
    if code != expected:
        tail = engine.call("logs", "--tail", "20", name)
        raise CheckError(f"{name}: SIGTERM ended in {code}, not {expected}:\n{tail.stdout}{tail.stderr}")
    engine.call("rm", name)
    return seconds


def train(engine: Engine, image: str, volume: Volume) -> list[str]:
    """A sweep on two gloo ranks: SIGTERM in the middle ends in 75, the next run completes it with 0."""
    volume.make()
    write_input(volume, ("none", "attention"))
    engine.run_hardened(
        image,
        "-c",
        BACKBONE,
        "/input/backbone",
        options=("--rm", "--entrypoint", "python", *volume.options()),
    )
    arguments = ("run", "--config", "/input/sweep.yaml", "--export", "onnx")
    name = NAMES["train"]
    engine.run_hardened(image, *arguments, options=("--detach", "--name", name, *volume.options()))
    heartbeat = volume.sweep / ".state" / "heartbeat"
    waited = wait_for("the first training step", heartbeat.is_file, seconds=240)
    stopped = _stop(engine, name, 75)
    if volume.status() != "preempted":
        raise CheckError(f"after SIGTERM results.json says {volume.status()!r}, not 'preempted'")
    start = time.monotonic()
    engine.run_hardened(image, *arguments, options=("--rm", *volume.options()))
    seconds = time.monotonic() - start
    if volume.status() != "complete":
        raise CheckError(f"after the second run results.json says {volume.status()!r}, not 'complete'")
    return [
        f"sweep on two processes: first step after {waited:.0f} s, SIGTERM → 75 in {stopped:.1f} s",
        f"the next run completed it in {seconds:.0f} s: exit 0, status complete, the selected model exported",
    ]


def offline(engine: Engine, image: str) -> str:
    """An image with data baked in reads them with no mount at all."""
    settings = ("--set", "data.root=/opt/data", "--set", "model.backbone=/opt/data/backbone")
    options = ("--rm", "--tmpfs", "/cache")
    done = engine.run_hardened(image, "data", "--config", "/opt/data/sweep.yaml", *settings, options=options)
    if not all(name in done.stdout for name in DOMAINS):
        raise CheckError(f"{image}: `data` does not show the baked domains:\n{done.stdout[-800:]}")
    return "reads the data that a named build context baked in, with nothing mounted"


def serve(engine: Engine, image: str, volume: Volume) -> list[str]:
    """The service loads what the sweep wrote, answers health, Classify, /metrics, and drains on SIGTERM."""
    name = NAMES["serve"]
    options = ("--detach", "--name", name, "--memory", "2g", "--volume", f"{volume.sweep}:/models:ro")
    engine.run_hardened(image, options=options)

    def inside(*command: str, check: bool = True) -> str | None:
        done = engine.call("exec", name, *command, check=check)
        return None if done.returncode else done.stdout

    def healthy() -> bool:
        return inside("stratified-classify", "health", "--target", "127.0.0.1:50053", check=False) is not None

    ready = wait_for("health", healthy, seconds=180)
    reply = json.loads(inside("stratified-classify", "--json", "a good and happy day") or "")
    if reply.get("label") not in SENTENCES:
        raise CheckError(f"Classify answered without a label: {reply}")
    metrics = inside("python", "-c", METRICS) or ""
    if "stratified_model_ready" not in metrics:
        raise CheckError("/metrics does not show stratified_model_ready")
    stopped = _stop(engine, name, 0)
    lines = len(metrics.splitlines())
    return [
        f"healthy after {ready:.1f} s; Classify → {reply['label']}; {lines} lines of metrics",
        f"SIGTERM → 0 in {stopped:.1f} s",
    ]
