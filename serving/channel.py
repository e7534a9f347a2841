"""How a client reaches a server: in clear or with TLS, with a certificate or a token of its own.

It knows files and gRPC's channels, and no method. Certificates are read when the channel is opened; a token
is read again when its file changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from serving.calls import channel_options
from serving.certificates import IdentityFiles, read_authorities
from serving.errors import BadSettings
from serving.hosts import is_loopback
from serving.tokens import TokenSource


@dataclass(frozen=True, slots=True)
class Security:
    """What a client trusts and shows. `ca`: the server's authorities (None: the well-known ones); `cert` and
    `key`: its own identity, for servers that ask for one; `server_name`: the name in the server's certificate
    where it is not the target's; `token_file`: the first token in it goes with every call.
    """

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    token_file: Path | None = None


PLAIN = Security()


def credentials(
    security: Security, *, now: Callable[[], float] = time.time
) -> grpc.ChannelCredentials | None:
    """For a channel; None in clear. Raises `BadSettings` for files, or sets of them, that cannot work."""
    if not security.tls:
        given = [name for name in ("ca", "cert", "key", "server_name") if getattr(security, name)]
        if given:
            raise BadSettings(f"--{given[0].replace('_', '-')} is given without --tls; add --tls")
        return None
    if bool(security.cert) != bool(security.key):
        given_flag, missing = ("--cert", "--key") if security.cert else ("--key", "--cert")
        raise BadSettings(f"{given_flag} is given without {missing}; give both, or neither")
    roots = read_authorities(security.ca, flag="--ca", now=now) if security.ca else None
    if security.cert is None or security.key is None:
        return grpc.ssl_channel_credentials(roots)
    files = IdentityFiles(security.cert, security.key, role="client", flags=("--cert", "--key"))
    identity = files.read(now=now)
    return grpc.ssl_channel_credentials(roots, identity.key, identity.chain)


def token_source(security: Security, target: str) -> TokenSource | None:
    """What adds the token to calls; raises `BadSettings` for a file without one, and where all could read it
    on its way.
    """
    if security.token_file is None:
        return None
    if not security.tls and not is_loopback(target):
        raise BadSettings(f"--token-file: the token would travel in clear to {target}; add --tls")
    return TokenSource(security.token_file, clock=time.monotonic)


def open_channel(target: str, security: Security, *, attempts: int) -> grpc.Channel:
    """For blocking callers; raises `BadSettings`."""
    proof, options = credentials(security), _options(security, attempts)
    if proof is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, proof, options=options)


def open_aio_channel(target: str, security: Security, *, attempts: int) -> grpc.aio.Channel:
    """The same for asyncio."""
    proof, options = credentials(security), _options(security, attempts)
    if proof is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, proof, options=options)


def _options(security: Security, attempts: int) -> list[tuple[str, Any]]:
    options = channel_options(attempts=attempts)
    if security.server_name:
        options.append(("grpc.ssl_target_name_override", security.server_name))
    return options
