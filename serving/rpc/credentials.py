"""How the service port proves who it is, and whom it lets in: TLS with files that may be renewed at any time.

It knows gRPC's credentials; what a good certificate is, stands in `serving.certificates`. gRPC asks before
every handshake, so that a renewed file serves the next connection, and nothing is restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from serving.certificates import Identity, IdentityFiles, read_authorities
from serving.watched import INTERVAL, Watched


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's identity, and the authorities of its clients (None: clients need no certificate)."""

    identity: IdentityFiles
    client_ca: Path | None = None

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
                roots = read_authorities(self.client_ca, flag="--tls-client-ca", now=now)
            on_identity(identity)
            return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], roots)

        paths = [self.identity.chain, self.identity.key]
        paths += [] if self.client_ca is None else [self.client_ca]
        watched = Watched(paths, read, clock=clock, interval=interval)
        return grpc.dynamic_ssl_server_credentials(
            watched.current(), watched.current, self.client_ca is not None
        )
