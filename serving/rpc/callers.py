"""Who calls, as far as fairness goes: the name in the client's certificate, or else its host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serving.hosts import peer_host

if TYPE_CHECKING:
    from serving.rpc.interceptors import Context


def caller_of(context: Context) -> str:
    """One name for all connections of a caller.

    A certificate that was verified tells more than an address: it holds behind a proxy, and for all replicas
    of a client. Nothing that a caller may freely choose takes part, or it could call under many names.
    """
    identities: Any = context.peer_identities()  # None without a verified certificate, whatever the stubs say
    for identity in identities or ():
        return f"certificate {identity.decode('utf-8', 'replace')}"
    return peer_host(context.peer())
