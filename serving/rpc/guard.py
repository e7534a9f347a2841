"""Who may call AdminService: who brings a token or a certificate, or, without either, who is on this machine.

It knows no method; what tokens and certificates are, stands in `serving.tokens` and `rpc/credentials.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.certificates import Identity
from serving.errors import BadSettings
from serving.hosts import is_loopback
from serving.rpc.credentials import Access, build_access
from serving.rpc.options import SecurityFiles


def admin_access(
    files: SecurityFiles,
    *,
    host: str,
    clock: Callable[[], float],
    on_identity: Callable[[Identity], None] = lambda identity: None,
) -> Access:
    """What the admin port asks for; nothing on loopback, unless there are files that say more.

    Raises `BadSettings` for an address that others reach while anybody could call, and for files that cannot
    work.
    """
    access = build_access(files, host=host, clock=clock, on_identity=on_identity)
    if access.guard is None and files.client_ca is None and not is_loopback(host):
        raise BadSettings(
            f"--admin-host {host!r} is reached by others, and no token is asked of them; set "
            f"{files.flag('token-file')} or {files.flag('tls-client-ca')}, or keep 127.0.0.1"
        )
    return access
