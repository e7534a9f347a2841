"""A process that leaves: what it wrote is out, its sockets end at once, and it exits with zero."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from serving import leaving

LEAVES = """
import atexit, socket, sys
from serving.leaving import leave
atexit.register(print, "the interpreter's own end")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.sendall(b"the last words")
print("no newline and no flush", end="")
leave()
"""


def test_connections_end_with_the_process_and_nothing_written_is_lost() -> None:
    command = [sys.executable, "-c", LEAVES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            assert client.makefile("rb").read() == b"the last words"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=20)
        assert process.stdout.read() == "no newline and no flush"
        assert process.wait(20) == 0


def test_who_listens_goes_first_and_only_sockets_are_touched() -> None:
    code = """
import os, socket
from serving import leaving
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
alone, pipe = socket.socket(), os.pipe()
order = []
class Spy(socket.socket):
    def shutdown(self, how):
        order.append(self.fileno())
        super().shutdown(how)
socket.socket = Spy
leaving.hang_up()
assert order[0] == listener.fileno(), order
assert {client.fileno(), server.fileno(), alone.fileno()} < set(order), order
assert client.recv(1) == b""
os.write(pipe[1], b"x")
assert os.read(pipe[0], 1) == b"x"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_there_is_no_list_of_descriptors_the_kernel_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "DESCRIPTORS", leaving.DESCRIPTORS / "nowhere")
    ours, other = socket.socketpair()
    with ours, other:
        leaving.hang_up()
        ours.sendall(b"x")
        assert other.recv(1) == b"x"
