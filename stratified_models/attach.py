"""Adds an exported file to a finished bundle, takes it out again, or changes its card, while others may be
reading the bundle.

At every moment the directory is a complete bundle: a manifest names only files that are in place. So a name
leaves the manifest before its file changes, and enters it after. It knows nothing of the file's format.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from stratified_models.bundle import CARD, FILES, MANIFEST, Bundle, read_bundle
from stratified_models.durable import entry_of, place, sync
from stratified_models.errors import ExportError
from stratified_models.manifest import Export, Manifest, manifest_to_json

__all__ = ["attach_export", "detach_export", "replace_card"]


def attach_export(bundle: Bundle, source: Path, export: Export) -> Bundle:
    """Move `source`, on the bundle's file system, into the bundle under its own name; returns the new bundle.

    Raises:
        ExportError: the name belongs to a file that every bundle has.
    """
    name = source.name
    if name in (*FILES, MANIFEST):
        raise ExportError(f"an export cannot be called {name!r}, a name of the bundle; rename the file")
    bundle = detach_export(bundle, name)
    manifest = bundle.manifest
    entry = entry_of(source)
    place(source, bundle.path / name)
    return _rewrite(
        bundle.path,
        replace(manifest, files={**manifest.files, name: entry}, exports={**manifest.exports, name: export}),
    )


def detach_export(bundle: Bundle, name: str) -> Bundle:
    """Take the export `name` out of the manifest, then remove its file; without one, do nothing."""
    manifest = bundle.manifest
    if name not in manifest.exports:
        return bundle
    files = {key: entry for key, entry in manifest.files.items() if key != name}
    exports = {key: entry for key, entry in manifest.exports.items() if key != name}
    without = _rewrite(bundle.path, replace(manifest, files=files, exports=exports))
    (bundle.path / name).unlink(missing_ok=True)
    sync(bundle.path)
    return without


def _rewrite(directory: Path, manifest: Manifest) -> Bundle:
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as aside:
        written = Path(aside) / MANIFEST
        written.write_bytes(manifest_to_json(manifest))
        place(written, directory / MANIFEST)
    return read_bundle(directory, verify=False)


def replace_card(bundle: Bundle, card: str) -> Bundle:
    """Give the bundle another model card; without a difference, do nothing. Returns the bundle as it then is.

    The manifest is away while the card changes: whoever looks meanwhile finds an unfinished bundle, and comes
    again.
    """
    path = bundle.path / CARD
    if path.read_text(encoding="utf-8") == card:
        return bundle
    with tempfile.TemporaryDirectory(dir=bundle.path, prefix=".writing-") as aside:
        written = Path(aside) / CARD
        written.write_text(card, encoding="utf-8")
        entry = entry_of(written)
        (bundle.path / MANIFEST).unlink()
        sync(bundle.path)
        place(written, path)
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, CARD: entry})
    return _rewrite(bundle.path, manifest)
