"""The bundle: a directory in the Hugging Face layout, with a manifest that is written last.

It is the only thing that passes from a training job to a service. Reading needs no torch: the heavy imports
are inside `write_bundle`, `load_model` and `check_parity`. It knows no job and no service.

A directory is a bundle exactly when it holds a readable manifest: writers remove an old manifest first and
put the new one in place last, each file by way of fsync and rename, so a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratified_models.durable import entry_of, place, sync
from stratified_models.errors import BundleCorrupt, BundleError, BundleIncomplete, BundleMissing
from stratified_models.manifest import (
    Backbone,
    Domain,
    Export,
    FileEntry,
    Manifest,
    OutOfDomain,
    Parity,
    manifest_from_json,
    manifest_to_json,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stratified_models.base import StratifiedForSequenceClassification

__all__ = [
    "FILES",
    "MANIFEST",
    "PARITY_TEXTS",
    "Backbone",
    "Bundle",
    "Domain",
    "Export",
    "FileEntry",
    "Manifest",
    "OutOfDomain",
    "Parity",
    "check_parity",
    "copy_bundle",
    "load_model",
    "read_bundle",
    "write_bundle",
]

MANIFEST = "manifest.json"
CARD = "README.md"
FILES: tuple[str, ...] = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", CARD)

PARITY_TEXTS: tuple[str, ...] = (
    "",
    "Good.",
    "The plot drags, but the ending is worth it.",
    "It arrived on Tuesday.",
    "Not bad at all; I would buy it again, though the battery dies far too soon!",
    "zzz qqq 12345 %%% ñ 電 🙂",
    "What a waste of two hours. " * 12,
)


@dataclass(frozen=True)
class Bundle:
    """A finished model on disk: where it is, what its manifest says, and the hash of the manifest's bytes."""

    path: Path
    manifest: Manifest
    sha256: str


def read_bundle(directory: Path, *, verify: bool = True) -> Bundle:
    """The bundle in `directory`.

    Args:
        directory: where the manifest is.
        verify: compare size and hash of every file; False only looks whether each is there.

    Raises:
        BundleMissing: no directory, or no manifest in it.
        BundleIncomplete: a file is not there.
        BundleCorrupt: a file differs from the manifest, or the manifest is no JSON.
        BundleIncompatible: the manifest is of another schema.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "has no manifest.json" if directory.is_dir() else "is no directory"
        raise BundleMissing(
            f"{directory} {what}, so it is no bundle; name the folder of a finished model"
        ) from error
    manifest = manifest_from_json(data, source=str(path))
    absent = [name for name in FILES if name not in manifest.files]
    absent += [name for name in manifest.files if not (directory / name).is_file()]
    if absent:
        raise BundleIncomplete(
            f"{directory} lacks {absent[0]}, which belongs to this bundle; copy the bundle again"
        )
    if verify:
        for name, entry in manifest.files.items():
            _verify(directory / name, entry)
    return Bundle(directory, manifest, hashlib.sha256(data).hexdigest())


def write_bundle(
    directory: Path,
    *,
    model: StratifiedForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    manifest: Manifest,
    card: str,
) -> Bundle:
    """Write a finished model into `directory`, and return it as a reader sees it.

    Files of other names in the directory, such as checkpoints, stay. `manifest.files` and `manifest.parity`
    are filled in here: the parity logits come from the written weights, loaded again.
    """
    from stratified_models.sources import quiet

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as aside:
        folder = Path(aside)
        with quiet():
            model.save_pretrained(folder, max_shard_size="1TB")
        tokenizer.save_pretrained(str(folder))
        (folder / CARD).write_text(card, encoding="utf-8")
        logits = _logits(_load(folder), tokenizer, PARITY_TEXTS)
        manifest = replace(manifest, parity=Parity(PARITY_TEXTS, logits))
        return _install(folder, directory, manifest)


def copy_bundle(source: Path, target: Path) -> Bundle:
    """Copy the bundle in `source` to `target` under the same discipline as writing; verifies it on the way.

    Raises:
        BundleError: `source` holds no intact bundle.
    """
    bundle = read_bundle(source)
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".writing-") as aside:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, Path(aside) / name)
        return _install(Path(aside), target, bundle.manifest, bundle.manifest.files)


def load_model(bundle: Bundle) -> StratifiedForSequenceClassification:
    """The bundle's model in fp32 on the CPU, prepared for inference.

    Raises:
        BundleCorrupt: its weights do not fit its configuration.
    """
    return _load(bundle.path)


def check_parity(
    bundle: Bundle,
    model: StratifiedForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    tolerance: float = 1e-3,
) -> float:
    """Largest distance between the model's logits here and those in the manifest.

    Raises:
        BundleCorrupt: it is above `tolerance`, or not a number.
    """
    expected = bundle.manifest.parity
    found = _logits(model, tokenizer, expected.texts)
    pairs = [
        (a, b) for one, two in zip(expected.logits, found, strict=True) for a, b in zip(one, two, strict=True)
    ]
    worst = max((abs(a - b) for a, b in pairs), default=0.0)
    if not worst <= tolerance:
        raise BundleCorrupt(
            "model.safetensors", f"the recorded logits within {tolerance}", f"logits {worst:.3g} away"
        )
    return worst


def _load(folder: Path) -> StratifiedForSequenceClassification:
    import torch

    from stratified_models import register
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.sources import quiet

    register()  # where the import of the package was told not to: config.json is read by its model type
    with quiet():
        loaded: Any = StratifiedForSequenceClassification.from_pretrained(
            str(folder),
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # told below, in words of ours
        )
    model, info = loaded
    unlike = {name for name, *_ in info["mismatched_keys"]}
    wrong = sorted({*info["missing_keys"], *info["unexpected_keys"], *unlike})
    if wrong:
        raise BundleCorrupt(
            "model.safetensors", "the parameters of config.json", f"a difference in {wrong[0]}"
        )
    prepared: StratifiedForSequenceClassification = model.prepare_for_inference()
    return prepared


def _logits(
    model: StratifiedForSequenceClassification, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> tuple[tuple[float, ...], ...]:
    """Logits of each text alone, domain unknown, rounded to 6 decimals."""
    import torch

    rows = []
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=model.config.max_length, return_tensors="pt")
            reply = model(batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device))
            rows.append(tuple(round(float(x), 6) for x in reply.logits[0].float().cpu()))
    return tuple(rows)


def _install(
    folder: Path, directory: Path, manifest: Manifest, files: dict[str, FileEntry] | None = None
) -> Bundle:
    """Move the files of `folder` into `directory`, then the manifest."""
    names = (*FILES, *manifest.exports)
    found = {name: entry_of(folder / name) for name in names}
    for name, entry in (files or {}).items():
        if found.get(name) != entry:
            raise BundleCorrupt(name, entry.sha256, found[name].sha256 if name in found else "no file")
    _retire(directory, keep=names)
    for name in names:
        place(folder / name, directory / name)
    manifest = replace(manifest, files=found)
    aside = folder / MANIFEST
    aside.write_bytes(manifest_to_json(manifest))
    place(aside, directory / MANIFEST)
    return read_bundle(directory, verify=False)


def _retire(directory: Path, *, keep: Iterable[str]) -> None:
    """Remove an old bundle's manifest, then its exports, which are of the old weights."""
    try:
        exports = set(read_bundle(directory, verify=False).manifest.exports)
    except BundleError:
        exports = set()
    (directory / MANIFEST).unlink(missing_ok=True)
    sync(directory)
    for name in exports - set(keep):
        (directory / name).unlink(missing_ok=True)


def _verify(path: Path, entry: FileEntry) -> None:
    size = path.stat().st_size
    if size != entry.bytes:
        raise BundleCorrupt(path.name, f"{entry.bytes} bytes", f"{size} bytes")
    found = entry_of(path)
    if found.sha256 != entry.sha256:
        raise BundleCorrupt(path.name, f"sha256 {entry.sha256}", f"sha256 {found.sha256}")
