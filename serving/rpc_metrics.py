"""The metrics that every gRPC server has, by their usual names: started less handled is in flight."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from serving import series


class RpcMetrics:
    """Instruments of calls, each by kind, service and method."""

    def __init__(self, r: CollectorRegistry) -> None:
        self.rpc_started = Counter("grpc_server_started", "RPCs that began.", series.RPC_LABELS, registry=r)
        self.rpc_handled = Counter(
            "grpc_server_handled",
            "RPCs that ended, by status code.",
            (*series.RPC_LABELS, "grpc_code"),
            registry=r,
        )
        self.rpc_seconds = Histogram(
            "grpc_server_handling_seconds", "Time from the start to the end of an RPC.", series.RPC_LABELS,
            buckets=series.SECONDS, registry=r,
        )  # fmt: skip
        self.rpc_received = Counter(
            "grpc_server_msg_received", "Messages received.", series.RPC_LABELS, registry=r
        )
        self.rpc_sent = Counter("grpc_server_msg_sent", "Messages sent.", series.RPC_LABELS, registry=r)

    def declare_rpc(self, kind: str, service: str, method: str, codes: Iterable[str]) -> None:
        """Create all series of an RPC."""
        labels = (kind, service, method)
        for instrument in (self.rpc_started, self.rpc_seconds, self.rpc_received, self.rpc_sent):
            instrument.labels(*labels)
        for code in codes:
            self.rpc_handled.labels(*labels, code)
