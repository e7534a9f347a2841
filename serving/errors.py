"""Everything that can go wrong, as one tree of meanings; it knows no gRPC status and no wire.

    ServingError                        an answer to a caller; `rpc/status.py` gives each a status
    ├── InvalidRequest                  the request cannot be answered as it is (names the field)
    │   ├── EmptyText
    │   ├── TextTooLong
    │   ├── UnknownDomain
    │   └── BatchTooLarge
    ├── Unauthenticated                 the caller did not show that it may
    ├── ModelNotFound                   no such variant in the store
    ├── NotPossible                     an operator's wish that the state of things forbids
    │   ├── ModelUnusable
    │   │   └── NoRoomForModel
    │   └── ModelIsDefault
    ├── Refused                         not now: turned away before any work was done
    │   ├── QueueFull
    │   │   └── CallerQueueFull
    │   └── WouldMissDeadline
    ├── DeadlineMissed                  the deadline passed while the item waited
    ├── Unavailable                     the service, or the model, cannot answer at all for now
    │   ├── Draining
    │   ├── ModelNotReady
    │   ├── ModelNotLoaded
    │   └── EngineCrashed
    │       └── EngineHung
    └── ItemFailed                      the engine fails on this very item

    StartError                          the program cannot run; carries its exit code
    ├── BadSettings                     2
    ├── BadStore                        3
    │   └── NoRoom                      the model would not fit beside those that are loaded
    └── PortInUse                       4

Messages give the value, the rule and the cure, and never any part of a text.
"""

# ruff: noqa: N818  these are meanings, and read better without a suffix

from __future__ import annotations

from typing import ClassVar


class ServingError(Exception):
    """Something that a caller is told; `reason` is its stable name in UPPER_SNAKE_CASE."""

    reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequest(ServingError):
    """The request cannot be answered as it is; `field` is the path of what is wrong with it."""

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class EmptyText(InvalidRequest):
    """Nothing to classify."""

    reason = "EMPTY_TEXT"


class TextTooLong(InvalidRequest):
    """More bytes than the server takes, or more tokens than the model reads while cutting is forbidden."""

    reason = "TEXT_TOO_LONG"


class UnknownDomain(InvalidRequest):
    """The model does not know the domain, and the caller or the server wants that to be an error."""

    reason = "UNKNOWN_DOMAIN"


class BatchTooLarge(InvalidRequest):
    """More items than a call may bring, or more tokens than the queue ever holds."""

    reason = "BATCH_TOO_LARGE"


class ModelNotFound(ServingError):
    """The store has no such variant."""

    reason = "MODEL_NOT_FOUND"


class Unauthenticated(ServingError):
    """The call brings no token, or none that the server knows."""

    reason = "UNAUTHENTICATED"


class NotPossible(ServingError):
    """What an operator asks for cannot be done as things are; asking again changes nothing."""

    reason = "NOT_POSSIBLE"


class ModelUnusable(NotPossible):
    """The bundle in the store does not verify, or does not run; what answered before answers on."""

    reason = "MODEL_UNUSABLE"


class NoRoomForModel(ModelUnusable):
    """The loaded models leave too little of the memory that models may take."""

    reason = "NO_ROOM_FOR_MODEL"


class ModelIsDefault(NotPossible):
    """The default model cannot be let go."""

    reason = "MODEL_IS_DEFAULT"


class Refused(ServingError):
    """Turned away before any work was done; `retry_after` says when it is worth coming back."""

    reason = "REFUSED"


class QueueFull(Refused):
    """As many tokens wait as may wait."""

    reason = "QUEUE_FULL"


class CallerQueueFull(QueueFull):
    """As many tokens of this caller wait as may, while others need room too."""

    reason = "CALLER_QUEUE_FULL"


class WouldMissDeadline(Refused):
    """The predicted wait is longer than the caller's remaining time."""

    reason = "WOULD_MISS_DEADLINE"


class DeadlineMissed(ServingError):
    """The deadline passed before the engine took the item."""

    reason = "DEADLINE_MISSED"


class Unavailable(ServingError):
    """Nothing is wrong with the request; the service cannot answer it for now."""

    reason = "UNAVAILABLE"


class Draining(Unavailable):
    """The service is stopping; another one will answer, soon: a new connection is all that it takes."""

    reason = "DRAINING"

    def __init__(self, message: str, *, retry_after: float = 0.25) -> None:
        """`message` names the cure; `retry_after` is in seconds."""
        super().__init__(message, retry_after=retry_after)


class ModelNotReady(Unavailable):
    """The model is still being loaded, or failed to load."""

    reason = "MODEL_NOT_READY"


class ModelNotLoaded(Unavailable):
    """The variant is in the store, but the server was not told to load it."""

    reason = "MODEL_NOT_LOADED"


class EngineCrashed(Unavailable):
    """The engine died with this item in its hands; it is being restarted."""

    reason = "ENGINE_CRASHED"


class EngineHung(EngineCrashed):
    """The engine has not come back with this item for longer than it may take; its thread is replaced."""

    reason = "ENGINE_HUNG"


class ItemFailed(ServingError):
    """The engine raises on this item even when it is alone in its batch."""

    reason = "ITEM_FAILED"


class StartError(Exception):
    """The program cannot run: one line for the operator, and the exit code."""

    exit_code: ClassVar[int] = 1


class BadSettings(StartError):
    """A flag or a variable has a value that cannot work."""

    exit_code = 2


class BadStore(StartError):
    """There is no usable model where the settings point."""

    exit_code = 3


class NoRoom(BadStore):
    """The model would not fit into the memory that models may take, beside those that are loaded."""


class PortInUse(StartError):
    """Another process listens where this one shall."""

    exit_code = 4
