"""Checkov's Kubernetes policies over the rendered manifests, where it is installed; it needs no network.

Checkov lives in an environment of its own (`make manifests-check` makes it), since it pins what the project
uses too. This module knows which policies the project decides otherwise, and why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from k8s.checks.rendering import FOLDER, Manifest
from k8s.checks.schemas import inner_jobs

OWN = FOLDER.parent / ".venv" / "policy" / "bin"
# Policy → why the project decides otherwise.
DECIDED_OTHERWISE = {
    "CKV_K8S_11": "no CPU limits: they throttle the loaders and the engine; requests share the node fairly",
    "CKV_K8S_15": "imagePullPolicy IfNotPresent: tags are versions and never move",
    "CKV_K8S_21": "the namespace is the deployer's: kubectl -n, or a kustomization",
    "CKV_K8S_43": "digests are the deployer's, with the registry: `images:` in a kustomization",
}


def tool() -> str | None:
    """Checkov's path; None where it is not installed."""
    return shutil.which("checkov", path=str(OWN)) or shutil.which("checkov")


def policy_faults(streams: Mapping[str, list[Manifest]]) -> tuple[int, list[str]]:
    """How many policies held, and one line each that did not. Raises RuntimeError when checkov breaks."""
    with tempfile.TemporaryDirectory(prefix="policy-") as folder:
        for name, stream in streams.items():
            documents = [*stream, *(job for manifest in stream for job in inner_jobs(manifest))]
            path = Path(folder, name.replace("/", "-").removesuffix(".yaml") + ".yaml")
            path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        command = [tool() or "checkov", "--framework", "kubernetes", "--directory", folder]
        command += ["--skip-download", "--compact", "--quiet", "--output", "json"]
        command += ["--skip-check", ",".join(DECIDED_OTHERWISE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
        passed, broken = report["summary"]["passed"], report["summary"]["parsing_errors"]
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"checkov gave no report ({error!r}): {done.stderr[-500:]}") from error
    faults = [
        f"{Path(item['file_path']).stem}: {item['resource']}: {item['check_id']}: {item['check_name']}"
        for item in report["results"]["failed_checks"]
    ]
    return passed, faults + [f"{broken} files that checkov cannot read"] * bool(broken)
