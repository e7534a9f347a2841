"""Holds manifests against schemas, strictly: Kubernetes' own, and for custom kinds those in crds.yaml.

It knows only what the schemas say. A kind with no schema is a fault, so that none slips through.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from k8s.checks.rendering import Manifest

# The three newest minor versions that the installed schemas hold.
VERSIONS = ("1.37", "1.36", "1.35")
BUILT_IN = {"v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
CUSTOM = Path(__file__).with_name("crds.yaml")


@cache
def custom_kinds() -> dict[str, dict[str, Any]]:
    """`apiVersion kind` → schemas of its top-level fields."""
    kinds: dict[str, dict[str, Any]] = yaml.safe_load(CUSTOM.read_text(encoding="utf-8"))["kinds"]
    return kinds


def is_built_in(manifest: Manifest) -> bool:
    """Whether Kubernetes itself serves this kind."""
    return manifest.get("apiVersion") in BUILT_IN


def schema_faults(stream: list[Manifest], versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """One line a violation; unknown fields and missing schemas count as violations."""
    found: list[str] = []
    for manifest in stream:
        if is_built_in(manifest):
            found += _built_in_faults(manifest, versions)
            continue
        found += _custom_faults(manifest)
        for job in inner_jobs(manifest):
            found += _built_in_faults(job, versions)
    return found


def inner_jobs(manifest: Manifest) -> list[Manifest]:
    """The Jobs that a JobSet makes, as Kubernetes would see them; none for another kind."""
    if manifest.get("kind") != "JobSet":
        return []
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{manifest['metadata']['name']}-{entry['name']}-0"},
            "spec": entry["template"]["spec"],
        }
        for entry in manifest["spec"]["replicatedJobs"]
    ]


def _built_in_faults(manifest: Manifest, versions: tuple[str, ...]) -> Iterator[str]:
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    for version in versions:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(map(str, error.path)) or "the document"
            yield f"{name}: {where}: {error.message} (Kubernetes {version})"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError):
            yield f"{name}: no schema in Kubernetes {version}; correct apiVersion or kind"


def _custom_faults(manifest: Manifest) -> Iterator[str]:
    identity = f"{manifest.get('apiVersion')} {manifest['kind']}"
    fields = custom_kinds().get(identity)
    if fields is None:
        yield f"{identity}: no schema in {CUSTOM.name}; correct apiVersion or kind, or write its schema down"
        return
    whole = {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", *fields],
        "properties": {"apiVersion": {}, "kind": {}, **fields},
    }
    for error in jsonschema.Draft202012Validator(whole).iter_errors(manifest):
        where = ".".join(map(str, error.path)) or "the document"
        yield f"{manifest['kind']} {manifest['metadata'].get('name')}: {where}: {error.message}"
