"""Holds manifests against the Kubernetes schemas, strictly. It knows only what the schemas say; kinds that a
cluster gets from elsewhere (custom resources) are named as not covered."""

from __future__ import annotations

import kubernetes_validate

from k8s.checks.rendering import Manifest

# The three newest minor versions that the installed schemas hold.
VERSIONS = ("1.37", "1.36", "1.35")
BUILT_IN = {"v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}


def is_built_in(manifest: Manifest) -> bool:
    """Whether Kubernetes itself serves this kind."""
    return manifest.get("apiVersion") in BUILT_IN


def schema_faults(stream: list[Manifest], versions: tuple[str, ...] = VERSIONS) -> list[str]:
    """One line a violation; unknown fields and missing schemas count as violations."""
    found = []
    for manifest in filter(is_built_in, stream):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        for version in versions:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(map(str, error.path)) or "the document"
                found.append(f"{name}: {where}: {error.message} (Kubernetes {version})")
            except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError):
                found.append(f"{name}: no schema in Kubernetes {version}; correct apiVersion or kind")
    return found
