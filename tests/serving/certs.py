"""Certificates that tests make for themselves, as files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

PAST = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Files:
    """A chain and its key."""

    chain: Path
    key: Path


def issue(
    folder: Path,
    authority: trustme.CA,
    *names: str,
    stem: str = "server",
    begins: datetime | None = None,
    ends: datetime | None = None,
) -> Files:
    """Write `stem`.pem and `stem`.key, for loopback unless named; an older pair is replaced."""
    leaf = authority.issue_cert(*(names or ("127.0.0.1", "localhost")), not_before=begins, not_after=ends)
    files = Files(folder / f"{stem}.pem", folder / f"{stem}.key")
    for path, content in (
        (files.chain, b"".join(blob.bytes() for blob in leaf.cert_chain_pems)),
        (files.key, leaf.private_key_pem.bytes()),
    ):
        aside = path.with_suffix(".new")
        aside.write_bytes(content)
        aside.replace(path)
    return files


def trust(folder: Path, authority: trustme.CA, *, stem: str = "ca") -> Path:
    """Write the authority's own certificate."""
    path = folder / f"{stem}.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return path
