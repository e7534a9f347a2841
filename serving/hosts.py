"""Hosts as gRPC writes them: which are this machine, and whose address a peer is; it opens nothing."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote


def is_loopback(target: str) -> bool:
    """Whether "host", "host:port", "dns:///host:port" or "unix:path" never leaves this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = _without_port(target.removeprefix("dns:").lstrip("/"))
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # any other name may stand for any address


def peer_host(peer: str) -> str:
    """The address in "ipv4:127.0.0.1:50000" or "ipv6:%5B::1%5D:50000", so that all connections of a host are
    one caller; other forms stay as they are.
    """
    family, _, address = unquote(peer).partition(":")
    return _without_port(address) if family in ("ipv4", "ipv6") else peer


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
