"""The values that travel through the service: frozen, typed, checked by nobody but their makers.

They know no wire format, no model library and no scheduler; every other module of `serving` speaks in them.
Times are seconds on a monotonic clock, durations are seconds, probabilities are 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Truncation(Enum):
    """What is kept of a text that has more tokens than the model reads."""

    HEAD = "HEAD"
    TAIL = "TAIL"
    HEAD_TAIL = "HEAD_TAIL"
    REJECT = "REJECT"


class DomainSource(Enum):
    """Where an answer's domain comes from; FALLBACK: the caller named one that the model does not know."""

    GIVEN = "GIVEN"
    INFERRED = "INFERRED"
    FALLBACK = "FALLBACK"


class AnswerWarning(Enum):
    """What a caller should know about an answer."""

    TRUNCATED = "TRUNCATED"
    UNKNOWN_DOMAIN = "UNKNOWN_DOMAIN"
    OUT_OF_DOMAIN = "OUT_OF_DOMAIN"
    LABEL_OUTSIDE_DOMAIN = "LABEL_OUTSIDE_DOMAIN"
    NO_STRATA = "NO_STRATA"


class ModelState(Enum):
    """Whether a variant of the store can answer."""

    AVAILABLE = "AVAILABLE"
    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"


class StreamOrder(Enum):
    """In which order a stream answers."""

    AS_SENT = "AS_SENT"
    AS_COMPLETED = "AS_COMPLETED"


@dataclass(frozen=True, slots=True)
class Options:
    """What an answer shall hold; None means: as the server is set."""

    top_k: int = 0
    raw_logits: bool = False
    truncation: Truncation | None = None
    explain: bool = False
    timings: bool = False
    strict_domain: bool | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One text with the domain that its caller named ("" = none) and the caller's own id for it."""

    text: str
    domain: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the model reads it: `ids`, `pieces` and `spans` (code points) have one entry a token.

    `content` is false for special tokens. `original_count` is the length before anything was cut.
    """

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    content: tuple[bool, ...]
    original_count: int

    @property
    def truncated(self) -> bool:
        """Whether something was cut."""
        return self.original_count > len(self.ids)


@dataclass(frozen=True, slots=True)
class EngineItem:
    """One row for the engine. `domain_id` is -1 for an unknown domain; `per_token` asks for token strata."""

    ids: tuple[int, ...]
    domain_id: int = -1
    per_token: bool = False


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What the engine says about one row.

    `logits` (C,) and `domain_logits` (N,) are raw. `energy` is the out-of-domain score, higher is stranger.
    `occupancy` (K,) and `strata` (T, K) are empty for a model without strata, `strata` also unless asked for.
    """

    logits: tuple[float, ...]
    domain_logits: tuple[float, ...]
    energy: float
    occupancy: tuple[float, ...] = ()
    strata: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Ride:
    """How one item fared on its way through the engine: seconds, the batch that it rode in, and when that
    began.
    """

    queue_seconds: float
    inference_seconds: float
    batch_items: int
    batch_tokens: int
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one answer went, in seconds, and the size of its batch (tokens with padding)."""

    tokenize: float
    queue: float
    inference: float
    total: float
    batch_items: int
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class TokenStrata:
    """One token: its piece, its span in the text, its strata (K,), its saliency in nats."""

    text: str
    start: int
    end: int
    strata: tuple[float, ...]
    saliency: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Which model answered."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer to one text; `scores` and `domain_scores` are pairs of name and probability, best first."""

    label: str
    label_index: int
    score: float
    scores: tuple[tuple[str, float], ...]
    domain: str
    domain_source: DomainSource
    domain_scores: tuple[tuple[str, float], ...]
    out_of_domain_score: float
    out_of_domain: bool
    strata: tuple[float, ...]
    token_count: int
    original_token_count: int
    model: ModelVersion
    logits: tuple[float, ...] = ()
    tokens: tuple[TokenStrata, ...] = ()
    warnings: tuple[AnswerWarning, ...] = ()
    timings: Timings | None = None

    @property
    def truncated(self) -> bool:
        """Whether something was cut."""
        return self.original_token_count > self.token_count


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain, the labels that occur in it, and its share of the training rows."""

    name: str
    labels: tuple[str, ...]
    share: float


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known about a model before it answers: everything that an answer is interpreted with."""

    version: ModelVersion
    labels: tuple[str, ...]
    domains: tuple[Domain, ...]
    max_tokens: int
    temperature: float = 1.0
    out_of_domain_threshold: float | None = None
    strata: int = 0
    engine: str = ""
    precision: str = ""
    created: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    load_seconds: float = 0.0
    engine_seconds: Mapping[str, float] = field(default_factory=dict)
    """What each engine took for the same rows when the fastest was looked for; empty without a choice."""

    def domain_id(self, name: str) -> int:
        """The index of the domain `name`; -1 when the model does not know it."""
        return next((index for index, domain in enumerate(self.domains) if domain.name == name), -1)


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One variant of the store and its state; `version` and `sha256` are empty when its manifest is
    unreadable.
    """

    name: str
    state: ModelState
    version: str = ""
    sha256: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """Whose items they are, whether they are rather held back than refused, and whether they count among the
    answers.
    """

    caller: str = ""
    patient: bool = False
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server accepts in a request, and what it assumes when a request does not say."""

    max_items: int = 128
    max_text_bytes: int = 65_536
    max_message_bytes: int = 4 * 1024 * 1024
    max_queued_tokens: int = 32_768
    max_stream_items: int = 64
    default_deadline: float = 30.0
    truncation: Truncation = Truncation.HEAD
    strict_domain: bool = False
