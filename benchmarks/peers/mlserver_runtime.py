"""MLServer's custom runtime with the plain classifier. Runs in the peer's own environment."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from plain import Classifier


class Plain(MLModel):
    """Text in, label out, in the Open Inference Protocol."""

    async def load(self) -> bool:
        """Load."""
        self.classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels of all texts of the (perhaps batched) request."""
        labels = self.classifier(StringCodec.decode_input(payload.inputs[0]))
        output = StringCodec.encode_output("label", labels)
        return InferenceResponse(model_name=self.name, outputs=[output])
