"""The gRPC servers: the service on its port, health alone on a plaintext probe port, and the operator's own.

It knows ports and channel options, and which servicer stands behind which server; no rule of any of them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.inference import open_inference_pb2, open_inference_pb2_grpc
from protos.stratified.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    sentiment_pb2,
    sentiment_pb2_grpc,
)
from serving.errors import PortInUse
from serving.metrics import Metrics
from serving.rpc.admin import AdminServicer
from serving.rpc.health import HealthServicer
from serving.rpc.interceptors import EdgeInterceptor, call_kind
from serving.rpc.open_inference import OpenInferenceServicer
from serving.rpc.options import ServerOptions
from serving.rpc.reflection import add_reflection
from serving.rpc.servicers import ModelServicer, SentimentServicer
from serving.service import Service

DESCRIPTORS = (
    sentiment_pb2.DESCRIPTOR.services_by_name["SentimentService"],
    model_pb2.DESCRIPTOR.services_by_name["ModelService"],
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
)
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]


def build_server(
    service: Service,
    health: HealthServicer,
    metrics: Metrics,
    options: ServerOptions,
    edge: EdgeInterceptor,
) -> grpc.aio.Server:
    """The service under both of its contracts, health (open to all) and reflection; every series of its RPCs
    exists from now on.
    """
    server = grpc.aio.server(interceptors=[edge], options=options.channel_arguments())
    sentiment_pb2_grpc.add_SentimentServiceServicer_to_server(SentimentServicer(service), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service), server)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(OpenInferenceServicer(service), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add_reflection(server, [descriptor.full_name for descriptor in DESCRIPTORS])
    _declare(metrics, DESCRIPTORS)
    return server


def build_admin_server(
    admin: AdminServicer, metrics: Metrics, options: ServerOptions, edge: EdgeInterceptor
) -> grpc.aio.Server:
    """AdminService with reflection, each call of both past the guard; its calls are counted as all others."""
    server = grpc.aio.server(interceptors=[edge], options=options.channel_arguments())
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    add_reflection(server, [ADMIN.full_name])
    _declare(metrics, [ADMIN])
    return server


def build_probe_server(health: HealthServicer) -> grpc.aio.Server:
    """Health alone, for the probes of an orchestrator; its calls are not counted."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


def listen(
    server: grpc.aio.Server,
    host: str,
    port: int,
    *,
    flag: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Bind, with TLS where there are credentials; the port that was bound (0 asks for any free one).

    Raises `PortInUse` when another process has it, or the address is not ours; `flag` names the cure.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        _try_bind(host, port)  # gRPC itself would write its own lines to stderr, and not say why
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "it is in use"
        raise PortInUse(f"cannot listen on {address}: {why}; set {flag}") from None


def _try_bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as gRPC does: old connections do not count
        probe.bind(address)


def _declare(metrics: Metrics, descriptors: Iterable[Any]) -> None:
    codes = [code.name for code in grpc.StatusCode]
    for descriptor in descriptors:
        for method in descriptor.methods:
            kind = call_kind(method.client_streaming, method.server_streaming)
            metrics.declare_rpc(kind, descriptor.full_name, method.name, codes)
