"""`inference.GRPCInferenceService`, the Open Inference Protocol 2: the same service, told in tensors.

Convert, await, convert. What the protocol has no words for (explanations, warnings, errors of single items)
stays with `SentimentService`.
"""

# ruff: noqa: N802  gRPC fixes the names of the methods

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from protos.inference import open_inference_pb2, open_inference_pb2_grpc
from serving.errors import InvalidRequest, ModelNotFound, ServingError
from serving.rpc.callers import caller_of
from serving.rpc.tensors import BYTES, DOMAIN, FP32, TEXT, Tensor, items_of, response_of
from serving.service import Answer, Service
from serving.types import Classification, ModelCard, ModelState, ModelSummary, Options, Truncation

if TYPE_CHECKING:
    from serving.rpc.interceptors import Context

NAME = "stratified-sentiment"
OUTPUTS = ("label", "scores", "domain", "out_of_domain_score")
Tensors = open_inference_pb2.ModelMetadataResponse.TensorMetadata


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(
        self, request: open_inference_pb2.ServerLiveRequest, context: Context
    ) -> open_inference_pb2.ServerLiveResponse:
        """That it answers."""
        return open_inference_pb2.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: open_inference_pb2.ServerReadyRequest, context: Context
    ) -> open_inference_pb2.ServerReadyResponse:
        """Whether the default model answers."""
        return open_inference_pb2.ServerReadyResponse(ready=self._service.ready)

    async def ModelReady(
        self, request: open_inference_pb2.ModelReadyRequest, context: Context
    ) -> open_inference_pb2.ModelReadyResponse:
        """Whether one model answers; a name that does not exist is an error, never a no."""
        summary = self._summary(request.name)
        fits = summary is not None and request.version in ("", summary.version)
        ready = fits and summary is not None and summary.state is ModelState.READY
        return open_inference_pb2.ModelReadyResponse(ready=ready and not self._service.draining.is_set())

    async def ServerMetadata(
        self, request: open_inference_pb2.ServerMetadataRequest, context: Context
    ) -> open_inference_pb2.ServerMetadataResponse:
        """Name and release."""
        return open_inference_pb2.ServerMetadataResponse(name=NAME, version=_release())

    async def ModelMetadata(
        self, request: open_inference_pb2.ModelMetadataRequest, context: Context
    ) -> open_inference_pb2.ModelMetadataResponse:
        """What a model takes and gives."""
        card, _ = self._service.model_info(request.name)
        _refuse_other_version(card, request.version)
        columns = len(card.labels)
        return open_inference_pb2.ModelMetadataResponse(
            name=card.version.name,
            versions=[card.version.version],
            platform=f"stratified_{card.engine}",
            inputs=[Tensors(name=name, datatype=BYTES, shape=[-1]) for name in (TEXT, DOMAIN)],
            outputs=[
                Tensors(name="label", datatype=BYTES, shape=[-1]),
                Tensors(name="scores", datatype=FP32, shape=[-1, columns]),
                Tensors(name="domain", datatype=BYTES, shape=[-1]),
                Tensors(name="out_of_domain_score", datatype=FP32, shape=[-1]),
            ],
        )

    async def ModelInfer(
        self, request: open_inference_pb2.ModelInferRequest, context: Context
    ) -> open_inference_pb2.ModelInferResponse:
        """Texts in, labels and scores out."""
        wanted = _wanted(request)
        options = _options(request.parameters)
        model = self._service.pin(request.model_name, options)
        card, _ = self._service.model_info(model)
        _refuse_other_version(card, request.model_version)
        answers = await self._service.classify_batch(
            items_of(request, most=self._service.limits.max_items),
            model=model,
            options=options,
            remaining=context.time_remaining(),
            caller=caller_of(context),
        )
        return _response(request, _all(answers), card.labels, wanted)

    def _summary(self, name: str) -> ModelSummary | None:
        """None: no name, and no default yet."""
        summaries, default = self._service.list_models()
        known = {summary.name: summary for summary in summaries}
        if name and name not in known:
            raise ModelNotFound(
                f"model {name[:40]!r} is not in the store; choose one of: {', '.join(known) or 'none yet'}"
            )
        return known.get(name or default)


def _refuse_other_version(card: ModelCard, wanted: str) -> None:
    loaded = card.version.version
    if wanted not in ("", loaded):
        raise ModelNotFound(
            f"version {wanted[:40]!r} of {card.version.name!r} is not loaded; ask for {loaded!r}, or for none"
        )


def _wanted(request: open_inference_pb2.ModelInferRequest) -> tuple[str, ...]:
    names = tuple(output.name for output in request.outputs)
    for place, name in enumerate(names):
        if name not in OUTPUTS or name in names[:place]:
            raise InvalidRequest(
                f"outputs[{place}] is {name[:40]!r}; ask for each of {', '.join(OUTPUTS)} at most once",
                field=f"outputs[{place}].name",
            )
    return names or OUTPUTS


def _options(parameters: Mapping[str, Any]) -> Options:
    truncation, strict = parameters.get("truncation"), parameters.get("strict_domain")
    chosen = None
    if truncation is not None:
        try:
            chosen = Truncation(truncation.string_param.upper())
        except ValueError:
            names = ", ".join(member.value for member in Truncation)
            raise InvalidRequest(
                f"parameter truncation is {truncation.string_param[:40]!r}; choose one of: {names}",
                field="parameters.truncation",
            ) from None
    if strict is not None and strict.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidRequest(
            "parameter strict_domain is no truth value; send true or false", field="parameters.strict_domain"
        )
    return Options(truncation=chosen, strict_domain=None if strict is None else strict.bool_param)


def _all(answers: Sequence[Answer]) -> list[Classification]:
    """The answers, if there is one for every text; raises the first error, which names its text."""
    found: list[Classification] = []
    for place, answer in enumerate(answers):
        if isinstance(answer, ServingError):
            answer.message = f"{TEXT}[{place}]: {answer.message}"
            if isinstance(answer, InvalidRequest):
                answer.field = f"{answer.field}[{place}]"
            raise answer
        found.append(answer)
    return found


def _response(
    request: open_inference_pb2.ModelInferRequest,
    answers: Sequence[Classification],
    labels: Sequence[str],
    wanted: Sequence[str],
) -> open_inference_pb2.ModelInferResponse:
    rows, notes = len(answers), {"labels": ",".join(labels)}
    scores = tuple(dict(answer.scores)[label] for answer in answers for label in labels)
    tensors = {
        "label": Tensor("label", (rows,), texts=tuple(answer.label for answer in answers)),
        "scores": Tensor("scores", (rows, len(labels)), numbers=scores, notes=notes),
        "domain": Tensor("domain", (rows,), texts=tuple(answer.domain for answer in answers)),
        "out_of_domain_score": Tensor(
            "out_of_domain_score", (rows,), numbers=tuple(answer.out_of_domain_score for answer in answers)
        ),
    }
    response = response_of([tensors[name] for name in wanted], raw=bool(request.raw_input_contents))
    by = answers[0].model
    response.model_name, response.model_version, response.id = by.name, by.version, request.id
    response.parameters["sha256"].string_param = by.sha256
    return response


def _release() -> str:
    try:
        return version(NAME)
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
