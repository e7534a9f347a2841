"""LitServe with the plain classifier. Runs in the peer's own environment.

It reads the annotation of `decode_request`, which must be the type and not its name: no postponed evaluation.
"""

import os
from typing import Any

import litserve
from plain import WAIT, Classifier, batching, deadline


class Api(litserve.LitAPI):
    """Decode, predict, encode, as its documentation shows."""

    def setup(self, device: str) -> None:
        """Load."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any]) -> str:
        """The text."""
        return str(request["text"])

    def predict(self, given: Any) -> Any:
        """A list when batching, else one text."""
        return self.classifier(given) if isinstance(given, list) else self.classifier([given])[0]

    def encode_response(self, output: str) -> dict[str, str]:
        """The label."""
        return {"label": output}


if __name__ == "__main__":
    batch = batching()
    api = Api(max_batch_size=batch, batch_timeout=WAIT) if batch > 1 else Api()
    # The queue over ZeroMQ is what its documentation advises from 100 requests a second on.
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, timeout=deadline() or 120, fast_queue=True
    )
    port = int(os.environ["PEER_PORT"])
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
