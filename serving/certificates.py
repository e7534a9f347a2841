"""Certificates and keys from PEM files, proved to work before anybody depends on them.

It knows TLS through the standard library alone, and neither gRPC nor any port. An identity is proved by a
handshake with itself in memory: that the key fits, that the certificate may play its part (server or client),
and until when it holds.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from serving.errors import BadSettings
from serving.watched import read_bytes

NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL: we compare the times ourselves
ROUNDS = 6  # a handshake in memory needs three
ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")

Role = Literal["server", "client"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain with its private key, both PEM, and when the certificate ends (Unix seconds)."""

    chain: bytes
    key: bytes
    expires: float

    def __repr__(self) -> str:
        return f"Identity(expires={self.expires_at})"  # never the key

    @property
    def expires_at(self) -> str:
        """The end, as people write it."""
        return _date(self.expires)


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where an identity is, which flags say so, and the part that it plays."""

    chain: Path
    key: Path
    role: Role = "server"
    flags: tuple[str, str] = ("--tls-cert", "--tls-key")

    def read(self, *, now: Callable[[], float] = time.time) -> Identity:
        """Read and prove; raises `BadSettings` with the flag, the rule and the cure."""
        chain_flag, key_flag = self.flags
        chain, key = read_bytes(self.chain, flag=chain_flag), read_bytes(self.key, flag=key_flag)
        parse_certificates(chain, self.chain, flag=chain_flag)
        if any(mark in key for mark in ENCRYPTED):
            raise BadSettings(f"{key_flag} {str(self.key)!r} is encrypted; give the key without a passphrase")
        expires = self._proved(now())
        if (read_bytes(self.chain, flag=chain_flag), read_bytes(self.key, flag=key_flag)) != (chain, key):
            raise BadSettings(f"{chain_flag} {str(self.chain)!r} changed while it was read; try again")
        return Identity(chain, key, expires)

    def _proved(self, now: float) -> float:
        """When the certificate ends, after a handshake in which it was shown and accepted."""
        flag, path = self.flags[0], str(self.chain)
        shown = self._rehearse()
        begins = ssl.cert_time_to_seconds(shown["notBefore"])
        ends = ssl.cert_time_to_seconds(shown["notAfter"])
        if now >= ends:
            raise BadSettings(f"{flag} {path!r} expired on {_date(ends)}; renew the certificate")
        if now < begins:
            raise BadSettings(
                f"{flag} {path!r} is not valid before {_date(begins)}; wait, or correct the clock"
            )
        return float(ends)

    def _rehearse(self) -> dict[str, Any]:
        """The certificate as the other side of a handshake sees it."""
        contexts = [ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
        server, client = contexts
        client.check_hostname = False
        for context in contexts:
            self._load(context)
            context.verify_mode = ssl.CERT_NONE
        judge = client if self.role == "server" else server
        judge.verify_mode = ssl.CERT_REQUIRED
        judge.load_verify_locations(self.chain)
        judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = [
            client.wrap_bio(to_client, to_server),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        try:
            for side in sides * ROUNDS:
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
            return sides[judge is server].getpeercert() or {}
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or "the handshake fails"
            raise BadSettings(
                f"{self.flags[0]} {str(self.chain)!r} does not work as a {self.role}'s certificate: {why}; "
                f"give one that was issued for a {self.role}"
            ) from None

    def _load(self, context: ssl.SSLContext) -> None:
        chain_flag, key_flag = self.flags
        try:
            context.load_cert_chain(self.chain, self.key, password=lambda: "")  # never ask a terminal
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise BadSettings(
                    f"{key_flag} {str(self.key)!r} does not belong to {chain_flag} {str(self.chain)!r}; "
                    "give the key that the certificate was made for"
                ) from None
            why = error.reason or "no private key"
            raise BadSettings(
                f"{key_flag} {str(self.key)!r} is no private key that TLS can use ({why}); give a PEM file"
            ) from None


def read_authorities(path: Path, *, flag: str, now: Callable[[], float] = time.time) -> bytes:
    """PEM of the authorities that are trusted; raises `BadSettings` when it has none that is in force."""
    pem = read_bytes(path, flag=flag)
    ends = [
        ssl.cert_time_to_seconds(str(entry["notAfter"]))
        for entry in parse_certificates(pem, path, flag=flag).get_ca_certs()
    ]
    if ends and max(ends) <= now():
        raise BadSettings(f"{flag} {str(path)!r} expired on {_date(max(ends))}; give a current authority")
    return pem


def parse_certificates(pem: bytes, path: Path, *, flag: str) -> ssl.SSLContext:
    """A context that trusts these certificates; raises `BadSettings` when they are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise BadSettings(f"{flag} {str(path)!r} holds no certificate; give a PEM file") from None
    return context


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
