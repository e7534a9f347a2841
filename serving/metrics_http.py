"""An HTTP port that serves `/metrics` and nothing else; it knows the registry and no metric."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from serving.errors import PortInUse


class MetricsServer:
    """Serves from a daemon thread of its own, so that a busy event loop can still be scraped."""

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        """Binds at once; raises `PortInUse`."""
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(registry))
        except OSError as error:
            raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}; set --metrics-port") from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a scraper that sends nothing does not keep a thread

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "only /metrics is served here")
                return
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            body = encode(registry)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
            """A scrape is no news."""

    return Handler
