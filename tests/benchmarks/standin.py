"""A peer that needs no environment of its own: plain HTTP around what every peer runs."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.peers.plain import Classifier


class Handler(BaseHTTPRequestHandler):
    """Answers with the label."""

    protocol_version = "HTTP/1.1"  # the load keeps its connections
    classifier: Classifier

    def do_POST(self) -> None:
        """One text."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"label": self.classifier([asked["text"]])[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    Handler.classifier = Classifier()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
