"""Who may call AdminService: who brings a token, or, without a file of tokens, who is on this machine.

It knows no method; what a token is, stands in `serving.tokens`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.errors import BadSettings
from serving.hosts import is_loopback
from serving.rpc.interceptors import Guard
from serving.tokens import TokenCheck, read_tokens

FLAG = "--admin-token-file"


def admin_guard(host: str, path: Path | None, *, clock: Callable[[], float]) -> Guard | None:
    """What checks the calls of operators; None on loopback without a file of tokens.

    Raises `BadSettings` for an address that others reach, without tokens, and for a file that holds none.
    """
    if path is not None:
        read_tokens(path, flag=FLAG)  # says what is wrong under the flag of this port
        return TokenCheck(path, clock=clock).guard
    if is_loopback(host):
        return None
    raise BadSettings(
        f"--admin-host {host!r} is reached by others, and no token is asked of them; "
        f"set {FLAG}, or keep 127.0.0.1"
    )
