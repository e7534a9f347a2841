"""Ports and options."""

from __future__ import annotations

import socket

import grpc
import pytest

from serving.errors import PortInUse
from serving.rpc.options import ServerOptions
from serving.rpc.server import listen


async def test_a_port_in_use_is_one_line_with_the_cure() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            PortInUse, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use; set --port"
        ):
            listen(grpc.aio.server(), "127.0.0.1", port, flag="--port")


async def test_two_servers_never_share_a_port() -> None:
    options = ServerOptions().channel_arguments()
    first, second = grpc.aio.server(options=options), grpc.aio.server(options=options)
    port = listen(first, "127.0.0.1", 0, flag="--port")
    await first.start()
    with pytest.raises(PortInUse):
        listen(second, "127.0.0.1", port, flag="--port")
    await first.stop(0)


async def test_a_foreign_address_is_refused_with_its_reason() -> None:
    with pytest.raises(PortInUse, match=r"203.0.113.1:0: .*; set --port"):
        listen(grpc.aio.server(), "203.0.113.1", 0, flag="--port")


async def test_an_address_of_the_sixth_version_is_bracketed() -> None:
    with pytest.raises(PortInUse, match=r"\[2001:db8::1\]:0"):
        listen(grpc.aio.server(), "2001:db8::1", 0, flag="--port")


def test_sharing_of_ports_is_off() -> None:
    assert ("grpc.so_reuseport", 0) in ServerOptions().channel_arguments()
