"""What a bundle says of itself, as frozen values, and its JSON.

It knows no files beyond their names, and no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from stratified_models.errors import BundleCorrupt, BundleIncompatible, ModelError

__all__ = [
    "SCHEMA_VERSION",
    "Backbone",
    "Domain",
    "Export",
    "FileEntry",
    "Manifest",
    "OutOfDomain",
    "Parity",
    "manifest_from_json",
    "manifest_to_json",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Backbone:
    """The pretrained encoder: how the run named it, and the hash of its pristine tensors."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Domain:
    """A domain: its name, the labels that its data has, and its share of the training rows."""

    name: str
    labels: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class OutOfDomain:
    """When a row counts as out of domain: its `score` is above `threshold`, a `quantile` of known rows."""

    score: str
    threshold: float
    quantile: float


@dataclass(frozen=True)
class Parity:
    """Texts and the logits that the model gave them when it was written, domain unknown."""

    texts: tuple[str, ...] = ()
    logits: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of a file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Export:
    """The same model in another format, beside the weights.

    Attributes:
        format: "onnx".
        precision: "fp32" or "int8".
        error: largest distance of its logits from the model's own, over `texts` texts.
        agreement: share of those texts that get the same label.
        quality: what was measured on data, JSON values: for int8 the loss of accuracy in each domain.
    """

    format: str
    precision: str
    error: float
    agreement: float
    texts: int
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Everything a service must know of a model without loading it.

    Attributes:
        name, version: what replies call the model.
        created: ISO 8601, UTC.
        variant, seed: which arm of the sweep it is.
        labels: class names in the order of the logits.
        domains: in the order of the domain ids.
        max_length: longest text in tokens.
        temperature: probabilities are softmax(logits / temperature).
        metrics, training: what the job chose to record; JSON values.
        files: every file but the manifest.
        exports: which of them are the model in another format.
    """

    name: str
    version: str
    created: str
    variant: str
    seed: int
    backbone: Backbone
    labels: tuple[str, ...]
    domains: tuple[Domain, ...]
    max_length: int
    temperature: float
    out_of_domain: OutOfDomain
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    parity: Parity = Parity()
    files: dict[str, FileEntry] = field(default_factory=dict)
    exports: dict[str, Export] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ModelError(f"temperature {self.temperature} is no positive number; fit it again, or take 1")
        if not math.isfinite(self.out_of_domain.threshold):
            raise ModelError(
                f"out-of-domain threshold {self.out_of_domain.threshold} is not finite; fit it again"
            )
        for domain in self.domains:
            unknown = [label for label in domain.labels if label not in self.labels]
            if unknown:
                raise ModelError(
                    f"domain {domain.name!r} has labels {unknown} outside {list(self.labels)}; correct it"
                )


def manifest_to_json(manifest: Manifest) -> bytes:
    """JSON of a manifest, keys in a fixed order, NaN refused."""
    try:
        return (json.dumps(asdict(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the manifest holds a value that JSON cannot: {error}; give plain, finite values"
        ) from error


def manifest_from_json(data: bytes, *, source: str) -> Manifest:
    """The manifest in `data`; `source` names it in messages.

    Raises:
        BundleCorrupt: not JSON, or a field of the wrong shape.
        BundleIncompatible: another schema version.
    """
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise BundleCorrupt(source, "JSON", "something else") from error
    found = raw.get("schema_version") if isinstance(raw, dict) else None
    if found != SCHEMA_VERSION:
        raise BundleIncompatible(
            f"{source} has schema_version {found!r}, this version reads {SCHEMA_VERSION}; "
            "write the bundle again, or install the version that wrote it"
        )
    try:
        return _manifest(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{type(error).__name__}: {error}"
        raise BundleCorrupt(source, f"a manifest of schema {SCHEMA_VERSION}", message) from error


def _manifest(raw: Mapping[str, Any]) -> Manifest:
    domains = [Domain(str(d["name"]), tuple(d["labels"]), float(d["share"])) for d in raw["domains"]]
    parity = Parity(
        tuple(raw["parity"]["texts"]), tuple(tuple(map(float, row)) for row in raw["parity"]["logits"])
    )
    files = {
        _plain_name(name): FileEntry(str(e["sha256"]), int(e["bytes"])) for name, e in raw["files"].items()
    }
    return Manifest(
        name=str(raw["name"]),
        version=str(raw["version"]),
        created=str(raw["created"]),
        variant=str(raw["variant"]),
        seed=int(raw["seed"]),
        backbone=Backbone(**raw["backbone"]),
        labels=tuple(raw["labels"]),
        domains=tuple(domains),
        max_length=int(raw["max_length"]),
        temperature=float(raw["temperature"]),
        out_of_domain=OutOfDomain(**raw["out_of_domain"]),
        metrics=dict(raw["metrics"]),
        training=dict(raw["training"]),
        parity=parity,
        files=files,
        exports={name: Export(**entry) for name, entry in raw.get("exports", {}).items()},
        schema_version=int(raw["schema_version"]),
    )


def _plain_name(name: str) -> str:
    """`name`, if it cannot lead out of the bundle."""
    path = PurePosixPath(name)
    if path.is_absolute() or len(path.parts) != 1 or name in (".", "..") or "\\" in name:
        raise ValueError(f"file name {name!r} leads out of the bundle")
    return name
