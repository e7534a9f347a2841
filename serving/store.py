"""What the folder of models holds: which variants, which is the default, and whether their manifests can be
read.

The folder is either one bundle, or a sweep's results with a bundle a variant and `results.json`, whose
`selected` names the default. It reads manifests and no weights; loading is `serving.loading`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath

from serving.errors import BadStore
from serving.source import Found, Store
from stratified_models.bundle import MANIFEST, read_bundle
from stratified_models.errors import BundleError

RESULTS = "results.json"
WEIGHTS = (".safetensors", ".onnx")


def open_store(root: Path, *, model: str = "") -> Store:
    """Survey the folder; `model` overrides the default that the sweep selected.

    Raises `BadStore` when there is no bundle, or no telling which one is the default.
    """
    by_name = survey(root)
    default = model or _default(root, by_name)
    if default not in by_name:
        known = ", ".join(sorted(by_name))
        raise BadStore(f"model {default!r} has no bundle in {root}; choose with --model among: {known}")
    return Store(root, by_name, default, selected="" if model else _selected(root))


def look_again(root: Path, *, model: str = "") -> Store:
    """Survey the folder while models of it answer; the default may have gone, or be in the making.

    Raises `BadStore` when there is no bundle at all, `OSError` when the folder cannot be read.
    """
    selected = "" if model else _selected(root)
    return Store(root, survey(root), model or selected, selected)


def survey(root: Path) -> dict[str, Found]:
    """Every variant in the folder by name, readable or not; raises `BadStore` when there is none."""
    if not root.is_dir():
        raise BadStore(f"{root} is not a folder; give a sweep's results or one bundle")
    if (root / MANIFEST).is_file():
        found = [_found(root)]
    else:
        found = [_found(path.parent) for path in sorted(root.glob(f"*/{MANIFEST}"))]
    if not found:
        raise BadStore(
            f"{root} holds no bundle (no {MANIFEST}, nor */{MANIFEST}); run a sweep, or correct the path"
        )
    return {entry.name: entry for entry in found}


def _found(path: Path) -> Found:
    stamp = _stamp(path)
    try:
        bundle = read_bundle(path, verify=False)
    except BundleError as error:
        return Found(path.resolve().name, path, error=str(error), stamp=stamp)
    version = bundle.manifest.version
    return Found(bundle.manifest.variant, path, version, bundle.sha256, stamp=stamp, weights=_weights(stamp))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Of the files in this very folder: a sweep keeps its units in folders below."""
    stamp: list[tuple[str, int, int]] = []
    with contextlib.suppress(OSError):  # a file may go while we look; reading the bundle says what that means
        for entry in sorted(path.iterdir()):
            if entry.is_file():
                stat = entry.stat()
                stamp.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return tuple(stamp)


def _weights(stamp: Iterable[tuple[str, int, int]]) -> int:
    """Bytes of the largest of the files that hold all weights: an engine reads one of them."""
    return max((size for name, size, _ in stamp if PurePath(name).suffix in WEIGHTS), default=0)


def _selected(root: Path) -> str:
    """What `results.json` selects; empty when it selects nothing, or cannot be read."""
    try:
        return str(json.loads((root / RESULTS).read_text(encoding="utf-8"))["selected"]["variant"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _default(root: Path, variants: Mapping[str, Found]) -> str:
    if len(variants) == 1:
        return next(iter(variants))
    path = root / RESULTS
    cure = f"set --model to one of: {', '.join(sorted(variants))}"
    try:
        selected = json.loads(path.read_text(encoding="utf-8"))["selected"]
        return str(selected["variant"])
    except FileNotFoundError:
        raise BadStore(f"{path} is missing, so no variant is selected; {cure}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadStore(f"{path} names no selected variant ({type(error).__name__}); {cure}") from None
