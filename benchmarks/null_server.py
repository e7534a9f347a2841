"""A server that answers every text with the same bytes: what the load and the wire alone can carry.

python -m benchmarks.null_server 50099
"""

from __future__ import annotations

import asyncio
import sys

from protos.stratified.v1 import sentiment_pb2

METHOD = "/stratified.v1.SentimentService/Classify"


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    import grpc

    label = sentiment_pb2.Classification(label="neutral", label_index=1, score=0.5)
    reply = sentiment_pb2.ClassifyResponse(result=label).SerializeToString()

    async def answer(request: bytes, context: object) -> bytes:
        return reply

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped in grpc
        """Knows one method."""

        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_unary_rpc_method_handler(answer) if details.method == METHOD else None

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
