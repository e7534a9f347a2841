"""What a connection to the server may do, and what it must show; it knows no server and imports none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Bytes, seconds, counts. `max_connection_age` makes long connections spread over new pods."""

    max_message_bytes: int = 4 * 1024 * 1024
    max_streams: int = 1024
    max_connection_age: float = 300.0
    keepalive: float = 60.0
    max_connections: int = 0
    """0: no bound of our own."""

    def channel_arguments(self) -> list[tuple[str, int]]:
        """As gRPC names them."""
        bounds = [("grpc.max_allowed_incoming_connections", self.max_connections)]
        return [
            *(bounds if self.max_connections else ()),
            ("grpc.so_reuseport", 0),  # on by default: a second process would silently share the port
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.max_connection_age_ms", round(self.max_connection_age * 1000)),
            ("grpc.keepalive_time_ms", round(self.keepalive * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ]


@dataclass(frozen=True, slots=True)
class SecurityFiles:
    """Where the proofs are: of the server (TLS), of its clients (mTLS), and the tokens of callers."""

    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    tokens: Path | None = None
    prefix: str = "--"

    def flag(self, name: str) -> str:
        """The flag that names a file, for messages."""
        return self.prefix + name
