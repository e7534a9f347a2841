"""Reads manifests and renders overlays. It knows kubectl and files, and not what a good manifest is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1]
BASE = FOLDER / "base"
OVERLAYS = FOLDER / "overlays"
# Files that apply alone; each is the base's file of the same name, byte for byte.
STANDALONE = ("train-job.yaml", "serve.yaml")

Manifest = dict[str, Any]


class RenderError(RuntimeError):
    """kubectl refused a kustomization; the message is kubectl's own."""


def parse(text: str) -> list[Manifest]:
    """The documents of one YAML stream, empty ones left out."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def read(path: Path) -> list[Manifest]:
    """The documents of one file."""
    return parse(path.read_text(encoding="utf-8"))


def kubectl() -> str | None:
    """The path of kubectl, or None where there is none."""
    return shutil.which("kubectl")


def render(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize FOLDER` prints; needs no cluster. Raises RenderError with kubectl's message."""
    done = subprocess.run(
        [kubectl() or "kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RenderError(f"{folder.name}: {done.stderr.strip()}")
    return parse(done.stdout)


def overlays() -> list[Path]:
    """Every overlay's folder, by name."""
    return sorted(path.parent for path in OVERLAYS.glob("*/kustomization.yaml"))


def identity(manifest: Manifest) -> tuple[str, str]:
    """Kind and name: what tells two objects of one namespace apart."""
    return manifest["kind"], manifest["metadata"]["name"]


def of_kind(stream: list[Manifest], kind: str) -> list[Manifest]:
    """The documents of one kind."""
    return [manifest for manifest in stream if manifest["kind"] == kind]


def pod_template(manifest: Manifest) -> Manifest | None:
    """The pod template inside a Job, a Deployment or a StatefulSet; None for anything else."""
    template: Manifest | None = manifest.get("spec", {}).get("template")
    return template if template and "containers" in template.get("spec", {}) else None


def containers(template: Manifest) -> list[Manifest]:
    """All containers of a pod template, init containers first."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]
