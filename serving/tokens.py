"""Bearer tokens out of a file: which ones are valid, and whether a caller brought one of them.

It knows the form of the file and of the `authorization` header, and no gRPC. A file holds one token a line;
several are valid at once, so that a new one can be handed out before the old one is taken away. Blank lines
and lines that begin with # are skipped. While the file cannot be read, or holds no token, nobody gets in.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.errors import BadSettings, Unauthenticated
from serving.watched import INTERVAL, Watched, read_bytes

AUTHORIZATION = "authorization"
SHORTEST = 16  # characters: below, a token can be guessed
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1: b64token


def read_tokens(path: Path, *, flag: str = "--token-file") -> tuple[str, ...]:
    """The tokens of a file in its order; raises `BadSettings`, which never shows any part of a token."""
    try:
        lines = read_bytes(path, flag=flag).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise BadSettings(f"{flag} {str(path)!r} is no ASCII text; write one token a line") from None
    tokens = []
    for number, line in enumerate(lines, start=1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if len(token) < SHORTEST or not TOKEN.fullmatch(token):
            raise BadSettings(
                f"{flag} {str(path)!r}, line {number}: a token has at least {SHORTEST} letters, digits "
                "or . _ ~ + / -; make one with: openssl rand -hex 32"
            )
        tokens.append(token)
    if not tokens:
        raise BadSettings(f"{flag} {str(path)!r} holds no token; write one a line: openssl rand -hex 32")
    return tuple(tokens)


class TokenCheck:
    """Whether a call may pass, by the tokens that the file holds now; of them only digests are kept."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        interval: float = INTERVAL,
        flag: str = "--token-file",
    ) -> None:
        """Raises `BadSettings`, which names `flag`, when the file holds no usable tokens."""

        def digests() -> tuple[bytes, ...]:
            return tuple(_digest(token) for token in read_tokens(path, flag=flag))

        # Whoever empties the file means to shut everybody out.
        nobody: tuple[bytes, ...] = ()
        self._digests = Watched([path], digests, clock=clock, interval=interval, fallback=nobody)

    def __call__(self, authorization: str | None) -> None:
        """Pass a header that brings a valid token; raises `Unauthenticated`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("this server wants a token; send metadata `authorization: Bearer TOKEN`")
        given = _digest(token.strip())
        # Every one is compared, whichever fits, and each in constant time: the time tells nothing.
        matches = [hmac.compare_digest(given, valid) for valid in self._digests.current()]
        if not any(matches):
            raise Unauthenticated("the token is not valid here (any more); ask the operator for another")

    def guard(self, metadata: Mapping[str, Any]) -> None:
        """The same for the metadata of a call."""
        header = metadata.get(AUTHORIZATION)
        self(None if header is None else str(header))


class TokenSource:
    """What a client sends: the first token of its file, read again when the file changes."""

    def __init__(self, path: Path, *, clock: Callable[[], float], interval: float = INTERVAL) -> None:
        """Raises `BadSettings` when the file holds no usable token."""
        self._tokens = Watched([path], lambda: read_tokens(path), clock=clock, interval=interval)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of a call."""
        return ((AUTHORIZATION, f"Bearer {self._tokens.current()[0]}"),)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
