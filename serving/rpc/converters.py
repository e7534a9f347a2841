"""Classifications between messages of the wire and values of `serving.types`, both ways: the service uses
one, the client the other.

It decides nothing: no default, no rule, no error but the refusal of an enum value that this release does not
know.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeVar

from google.protobuf import duration_pb2
from google.rpc import status_pb2

from protos.stratified.v1 import sentiment_pb2
from serving.errors import InvalidRequest
from serving.types import (
    AnswerWarning,
    Classification,
    DomainSource,
    Item,
    ModelVersion,
    Options,
    StreamOrder,
    Timings,
    TokenStrata,
    Truncation,
)

E = TypeVar("E", bound=Enum)

PREFIXES: dict[type[Enum], str] = {
    Truncation: "TRUNCATION_",
    DomainSource: "DOMAIN_SOURCE_",
    AnswerWarning: "WARNING_",
    StreamOrder: "STREAM_ORDER_",
}
WIRE = {
    Truncation: sentiment_pb2.Truncation,
    DomainSource: sentiment_pb2.DomainSource,
    AnswerWarning: sentiment_pb2.Warning,
    StreamOrder: sentiment_pb2.StreamOrder,
}


def enum_from_wire(kind: type[E], number: int, *, field: str = "") -> E | None:
    """The member; None for 0 ("not said"). Raises `InvalidRequest` for a number of a later release."""
    if number == 0:
        return None
    wire: Any = WIRE[kind]  # the stubs give each enum a type of its own
    try:
        return kind[wire.Name(number).removeprefix(PREFIXES[kind])]
    except ValueError:
        last = max(wire.values())
        raise InvalidRequest(
            f"{field} {number} is unknown to this release; use 0 to {last}", field=field
        ) from None


def enum_to_wire(member: Enum | None) -> int:
    """The number of a member; 0 for None."""
    if member is None:
        return 0
    return int(WIRE[type(member)].Value(PREFIXES[type(member)] + member.name))


def options_from_wire(message: sentiment_pb2.ClassifyOptions) -> Options:
    """Options of a request."""
    return Options(
        top_k=message.top_k,
        raw_logits=message.raw_logits,
        truncation=enum_from_wire(Truncation, message.truncation, field="options.truncation"),
        explain=message.explain,
        timings=message.timings,
        strict_domain=message.strict_domain if message.HasField("strict_domain") else None,
    )


def options_to_wire(options: Options) -> sentiment_pb2.ClassifyOptions:
    """Options for a request."""
    return sentiment_pb2.ClassifyOptions(
        top_k=options.top_k,
        raw_logits=options.raw_logits,
        truncation=enum_to_wire(options.truncation),  # type: ignore[arg-type]  # the stubs want the enum's own type
        explain=options.explain,
        timings=options.timings,
        strict_domain=options.strict_domain,
    )


def item_from_wire(message: sentiment_pb2.BatchItem | sentiment_pb2.ClassifyRequest) -> Item:
    """A text with its domain, and its id where it has one."""
    return Item(message.text, message.domain, getattr(message, "id", ""))


def item_to_wire(item: Item) -> sentiment_pb2.BatchItem:
    """A text for a batch or a stream."""
    return sentiment_pb2.BatchItem(id=item.id, text=item.text, domain=item.domain)


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a message, to the nanosecond."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def classification_to_wire(answer: Classification) -> sentiment_pb2.Classification:
    """An answer for the wire."""
    return sentiment_pb2.Classification(
        label=answer.label,
        label_index=answer.label_index,
        score=answer.score,
        scores=[sentiment_pb2.LabelScore(label=name, score=score) for name, score in answer.scores],
        logits=answer.logits,
        domain=answer.domain,
        domain_source=enum_to_wire(answer.domain_source),  # type: ignore[arg-type]  # as above
        domain_scores=[
            sentiment_pb2.DomainScore(domain=name, score=score) for name, score in answer.domain_scores
        ],
        out_of_domain_score=answer.out_of_domain_score,
        out_of_domain=answer.out_of_domain,
        strata=_strata_to_wire(answer.strata),
        tokens=[_token_to_wire(token) for token in answer.tokens],
        token_count=answer.token_count,
        original_token_count=answer.original_token_count,
        truncated=answer.truncated,
        warnings=[enum_to_wire(warning) for warning in answer.warnings],  # type: ignore[misc]  # as above
        model=sentiment_pb2.ModelVersion(
            name=answer.model.name, version=answer.model.version, sha256=answer.model.sha256
        ),
        timings=None if answer.timings is None else _timings_to_wire(answer.timings),
    )


def classification_from_wire(message: sentiment_pb2.Classification) -> Classification:
    """An answer off the wire; numbers in single precision, warnings of later releases left out."""
    known = (number for number in message.warnings if number in sentiment_pb2.Warning.values())
    warnings = (enum_from_wire(AnswerWarning, number) for number in known)
    return Classification(
        label=message.label,
        label_index=message.label_index,
        score=message.score,
        scores=tuple((entry.label, entry.score) for entry in message.scores),
        domain=message.domain,
        domain_source=enum_from_wire(DomainSource, message.domain_source) or DomainSource.INFERRED,
        domain_scores=tuple((entry.domain, entry.score) for entry in message.domain_scores),
        out_of_domain_score=message.out_of_domain_score,
        out_of_domain=message.out_of_domain,
        strata=tuple(entry.occupancy for entry in message.strata),
        token_count=message.token_count,
        original_token_count=message.original_token_count,
        model=ModelVersion(message.model.name, message.model.version, message.model.sha256),
        logits=tuple(message.logits),
        tokens=tuple(_token_from_wire(token) for token in message.tokens),
        warnings=tuple(warning for warning in warnings if warning is not None),
        timings=_timings_from_wire(message.timings) if message.HasField("timings") else None,
    )


def result_to_wire(item_id: str, outcome: Classification | status_pb2.Status) -> sentiment_pb2.BatchResult:
    """What became of one item of a batch."""
    if isinstance(outcome, Classification):
        return sentiment_pb2.BatchResult(id=item_id, result=classification_to_wire(outcome))
    return sentiment_pb2.BatchResult(id=item_id, error=outcome)


def streamed_to_wire(
    item_id: str, outcome: Classification | status_pb2.Status
) -> sentiment_pb2.ClassifyStreamResponse:
    """What became of one item of a stream."""
    if isinstance(outcome, Classification):
        return sentiment_pb2.ClassifyStreamResponse(id=item_id, result=classification_to_wire(outcome))
    return sentiment_pb2.ClassifyStreamResponse(id=item_id, error=outcome)


def _strata_to_wire(shares: Sequence[float]) -> list[sentiment_pb2.Stratum]:
    return [sentiment_pb2.Stratum(index=index, occupancy=share) for index, share in enumerate(shares)]


def _token_to_wire(token: TokenStrata) -> sentiment_pb2.Token:
    return sentiment_pb2.Token(
        text=token.text,
        start=token.start,
        end=token.end,
        strata=_strata_to_wire(token.strata),
        saliency=token.saliency,
    )


def _token_from_wire(message: sentiment_pb2.Token) -> TokenStrata:
    strata = tuple(entry.occupancy for entry in message.strata)
    return TokenStrata(message.text, message.start, message.end, strata, message.saliency)


def _timings_to_wire(timings: Timings) -> sentiment_pb2.Timings:
    return sentiment_pb2.Timings(
        tokenize=duration(timings.tokenize),
        queue=duration(timings.queue),
        inference=duration(timings.inference),
        total=duration(timings.total),
        batch_items=timings.batch_items,
        batch_tokens=timings.batch_tokens,
    )


def _timings_from_wire(message: sentiment_pb2.Timings) -> Timings:
    return Timings(
        tokenize=message.tokenize.ToNanoseconds() / 1e9,
        queue=message.queue.ToNanoseconds() / 1e9,
        inference=message.inference.ToNanoseconds() / 1e9,
        total=message.total.ToNanoseconds() / 1e9,
        batch_items=message.batch_items,
        batch_tokens=message.batch_tokens,
    )
