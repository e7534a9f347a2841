"""The columns of an output: what became of one row, as flat values that every format can hold.

The command line of callers and offline scoring write the same ones. It knows answers and no format. Numbers
are in single precision, as they come over the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from serving.calls import Answer, Failure

Kind = Literal["text", "integer", "number", "flag", "numbers"]
SCORE, KEPT = "score_", "input_"


@dataclass(frozen=True, slots=True)
class Column:
    """A name and what its values are; any of them may be missing."""

    name: str
    kind: Kind


ANSWER_HEAD = (Column("label", "text"), Column("label_index", "integer"), Column("score", "number"))
ANSWER_REST = (
    Column("domain", "text"),
    Column("domain_source", "text"),
    Column("domain_score", "number"),
    Column("out_of_domain_score", "number"),
    Column("out_of_domain", "flag"),
    Column("strata", "numbers"),
    Column("token_count", "integer"),
    Column("original_token_count", "integer"),
    Column("truncated", "flag"),
    Column("warnings", "text"),
    Column("model", "text"),
    Column("model_version", "text"),
    Column("model_sha256", "text"),
)
ERROR = (Column("error_code", "text"), Column("error_reason", "text"), Column("error_message", "text"))


def answer_columns(labels: Sequence[str]) -> tuple[Column, ...]:
    """What an answer fills: its label and the score of each, the domain, the strata, the model, the error."""
    scores = tuple(Column(SCORE + label, "number") for label in labels)
    return (*ANSWER_HEAD, *scores, *ANSWER_REST, *ERROR)


def kept_names(keep: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """What each column to keep is called in the output: `input_label` where the output has a `label`."""
    own = {"row", "id", *(column.name for column in answer_columns(labels))}
    return {name: f"{KEPT}{name}" if name in own else name for name in keep}


def output_columns(labels: Sequence[str], keep: Sequence[str] = ()) -> tuple[Column, ...]:
    """The number of the row, its id, the columns to keep, then the answer's."""
    kept = (Column(name, "text") for name in kept_names(keep, labels).values())
    return (Column("row", "integer"), Column("id", "text"), *kept, *answer_columns(labels))


def flat(answer: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """The values of an answer's columns; None where there is nothing to say."""
    values: dict[str, Any] = dict.fromkeys(column.name for column in answer_columns(labels))
    if isinstance(answer, Failure):
        values["error_code"], values["error_reason"] = answer.code.name, answer.reason
        values["error_message"] = answer.message
        return values
    scores = dict(answer.scores)
    values.update(
        {
            "label": answer.label,
            "label_index": answer.label_index,
            "score": single(answer.score),
            **{SCORE + label: single(scores[label]) for label in labels if label in scores},
            "domain": answer.domain,
            "domain_source": answer.domain_source.name,
            "domain_score": _maybe(dict(answer.domain_scores).get(answer.domain)),
            "out_of_domain_score": single(answer.out_of_domain_score),
            "out_of_domain": answer.out_of_domain,
            "strata": [single(share) for share in answer.strata],
            "token_count": answer.token_count,
            "original_token_count": answer.original_token_count,
            "truncated": answer.truncated,
            "warnings": " ".join(warning.name for warning in answer.warnings),
            "model": answer.model.name,
            "model_version": answer.model.version,
            "model_sha256": answer.model.sha256,
        }
    )
    return values


def single(value: float) -> float:
    """The shortest number that is the same in single precision."""
    return float(str(numpy.float32(value)))


def _maybe(value: float | None) -> float | None:
    return None if value is None else single(value)
