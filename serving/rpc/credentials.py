"""How a port proves who it is, and whom it lets in: TLS with files that may be renewed at any time.

It knows gRPC's credentials; what a good certificate is, stands in `serving.certificates`. gRPC asks before
every handshake, so that a renewed file serves the next connection, and nothing is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from serving.certificates import Identity, IdentityFiles, read_authorities
from serving.errors import BadSettings
from serving.hosts import is_loopback
from serving.rpc.options import SecurityFiles
from serving.tokens import TokenCheck
from serving.watched import INTERVAL, Watched

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's identity, and the authorities of its clients (None: clients need no certificate)."""

    identity: IdentityFiles
    client_ca: Path | None = None
    client_ca_flag: str = "--tls-client-ca"

    def credentials(
        self,
        *,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
        interval: float = INTERVAL,
        on_identity: Callable[[Identity], None] = lambda identity: None,
    ) -> grpc.ServerCredentials:
        """Credentials that follow the files; `on_identity` is told of each identity that comes into force.

        Raises `BadSettings` when the files are no good now; later on the last good ones stay.
        """

        def read() -> grpc.ServerCertificateConfiguration:
            identity = self.identity.read(now=now)
            roots = None
            if self.client_ca is not None:
                roots = read_authorities(self.client_ca, flag=self.client_ca_flag, now=now)
            on_identity(identity)
            return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], roots)

        paths = [self.identity.chain, self.identity.key]
        paths += [] if self.client_ca is None else [self.client_ca]
        watched = Watched(paths, read, clock=clock, interval=interval)
        return grpc.dynamic_ssl_server_credentials(
            watched.current(), watched.current, self.client_ca is not None
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What a port asks for: None where it asks for nothing."""

    credentials: grpc.ServerCredentials | None = None
    guard: Callable[[Mapping[str, Any]], None] | None = None


def build_access(
    files: SecurityFiles,
    *,
    host: str,
    clock: Callable[[], float],
    now: Callable[[], float] = time.time,
    interval: float = INTERVAL,
    on_identity: Callable[[Identity], None] = lambda identity: None,
) -> Access:
    """Read what the files hold; raises `BadSettings` for files, or sets of files, that cannot work."""
    tls = _tls(files)
    credentials = None
    if tls is not None:
        credentials = tls.credentials(clock=clock, now=now, interval=interval, on_identity=on_identity)
    guard = None
    if files.tokens:
        flag = files.flag("token-file")
        guard = TokenCheck(files.tokens, clock=clock, interval=interval, flag=flag).guard
    if guard and not credentials and not is_loopback(host):
        both = f"{files.flag('tls-cert')} and {files.flag('tls-key')}"
        log.warning(f"tokens travel in clear; set {both}", host=host)
    return Access(credentials, guard)


def _tls(files: SecurityFiles) -> ServerTls | None:
    cert, key, client_ca = (files.flag(name) for name in ("tls-cert", "tls-key", "tls-client-ca"))
    if files.cert and files.key:
        return ServerTls(IdentityFiles(files.cert, files.key, flags=(cert, key)), files.client_ca, client_ca)
    if files.cert or files.key:
        given, missing = (cert, key) if files.cert else (key, cert)
        raise BadSettings(f"{given} is given without {missing}; give both, or neither")
    if files.client_ca:
        raise BadSettings(f"{client_ca} is given without TLS; give {cert} and {key} too")
    return None
