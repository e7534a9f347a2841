"""Targets and peers."""

from __future__ import annotations

import pytest

from serving.hosts import is_loopback, peer_host


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1", "127.1.2.3:50051", "localhost:1", "dns:///localhost:1", "::1", "[::1]:50051", "unix:/a"],
)
def test_what_stays_on_this_machine(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target", ["0.0.0.0", "10.0.0.1:1", "dns:///service:1", "service", "[2001:db8::1]:1"]
)
def test_what_does_not(target: str) -> None:
    assert not is_loopback(target)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:50000", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[::1]:1", "::1"),
        ("unix:", "unix:"),
    ],
)
def test_all_connections_of_a_host_are_one_caller(peer: str, host: str) -> None:
    assert peer_host(peer) == host
