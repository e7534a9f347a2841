"""Descriptions of models between messages of the wire and values of `serving.types`, both ways; it decides
nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import timestamp_pb2

from protos.stratified.v1 import model_pb2
from serving.rpc.converters import duration
from serving.types import Domain, Limits, ModelCard, ModelState, ModelSummary, ModelVersion, Truncation


def info_to_wire(card: ModelCard, is_default: bool) -> model_pb2.ModelInfo:
    """The description of a model."""
    created = timestamp_pb2.Timestamp()
    if card.created:
        created.FromDatetime(datetime.fromisoformat(card.created))
    return model_pb2.ModelInfo(
        name=card.version.name,
        version=card.version.version,
        sha256=card.version.sha256,
        labels=card.labels,
        domains=[model_pb2.Domain(name=d.name, labels=d.labels, share=d.share) for d in card.domains],
        strata=card.strata,
        max_tokens=card.max_tokens,
        temperature=card.temperature,
        out_of_domain_threshold=card.out_of_domain_threshold,
        engine=card.engine,
        precision=card.precision,
        metrics=card.metrics,
        load_duration=duration(card.load_seconds),
        created=created if card.created else None,
        is_default=is_default,
    )


def limits_to_wire(limits: Limits) -> model_pb2.Limits:
    """What the server accepts and assumes."""
    return model_pb2.Limits(
        max_items=limits.max_items,
        max_text_bytes=limits.max_text_bytes,
        max_message_bytes=limits.max_message_bytes,
        max_queued_tokens=limits.max_queued_tokens,
        max_stream_items=limits.max_stream_items,
        default_deadline=duration(limits.default_deadline),
        default_truncation=limits.truncation.value,
        strict_domain=limits.strict_domain,
    )


def summary_to_wire(summary: ModelSummary) -> model_pb2.ModelSummary:
    """One variant of the store."""
    return model_pb2.ModelSummary(
        name=summary.name,
        state=model_pb2.ModelState.Value(f"MODEL_STATE_{summary.state.name}"),
        version=summary.version,
        sha256=summary.sha256,
        error=summary.error,
    )


def info_from_wire(message: model_pb2.ModelInfo) -> ModelCard:
    """The description of a model, as a client sees it."""
    created = message.created.ToDatetime(UTC).isoformat() if message.HasField("created") else ""
    return ModelCard(
        version=ModelVersion(message.name, message.version, message.sha256),
        labels=tuple(message.labels),
        domains=tuple(Domain(entry.name, tuple(entry.labels), entry.share) for entry in message.domains),
        max_tokens=message.max_tokens,
        temperature=message.temperature,
        out_of_domain_threshold=(
            message.out_of_domain_threshold if message.HasField("out_of_domain_threshold") else None
        ),
        strata=message.strata,
        engine=message.engine,
        precision=message.precision,
        created=created,
        metrics=dict(message.metrics),
        load_seconds=message.load_duration.ToNanoseconds() / 1e9,
    )


def limits_from_wire(message: model_pb2.Limits) -> Limits:
    """What the server accepts and assumes, as a client sees it."""
    return Limits(
        max_items=message.max_items,
        max_text_bytes=message.max_text_bytes,
        max_message_bytes=message.max_message_bytes,
        max_queued_tokens=message.max_queued_tokens,
        max_stream_items=message.max_stream_items,
        default_deadline=message.default_deadline.ToNanoseconds() / 1e9,
        truncation=Truncation(message.default_truncation),
        strict_domain=message.strict_domain,
    )


def summary_from_wire(message: model_pb2.ModelSummary) -> ModelSummary:
    """One variant of the store, as a client sees it."""
    state = ModelState[model_pb2.ModelState.Name(message.state).removeprefix("MODEL_STATE_")]
    return ModelSummary(message.name, state, message.version, message.sha256, message.error)
