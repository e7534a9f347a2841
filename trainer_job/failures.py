"""What a worker leaves behind when it fails, and how often a unit may be tried again.

Each rank writes its own record; the earliest one is the cause, the others are its echo. It does not know how
a worker is started.
"""

from __future__ import annotations

import errno
import re
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from trainer_job.errors import ConfigError, DataError, JobError, ResultsMismatch, WeightsError
from trainer_job.files import read_json, write_json
from trainer_job.units import Unit

MOST_ATTEMPTS = 3
OUT_OF_MEMORY = "OutOfMemory"
WORKER_LOST = "WorkerLost"  # ended by a signal, without a word
STALLED = "Stalled"
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "std::bad_alloc")
_KINDS: dict[str, type[JobError]] = {
    kind.__name__: kind for kind in (ConfigError, ResultsMismatch, DataError, WeightsError, JobError)
}
# Failures of the surroundings: another unit would meet them too, and no unit is to blame.
_SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors raises an exception of its own
_TORCH_WRITES = "PytorchStreamWriter failed writing"  # without the number of the error


@dataclass(frozen=True)
class Failure:
    """One failure: `unit` is None when it belongs to the whole job (data, weights, a full disk)."""

    unit: Unit | None
    kind: str
    message: str
    exit_code: int
    step: int | None = None
    phase: str = ""

    @property
    def signature(self) -> str:
        """What "the same exception" means: its type and its message without numbers."""
        return f"{self.kind}: {re.sub(r'[0-9]+', '#', self.message)}"

    def as_error(self) -> JobError:
        """The exception to end the job with."""
        error = _KINDS.get(self.kind, JobError)(self.message)
        error.exit_code = self.exit_code
        return error


def kind_of(error: BaseException) -> str:
    """The exception's type, but one name for memory that ran out, however a library says it."""
    words = str(error).lower()
    ran_out = isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in words for word in _MEMORY_WORDS)
    )
    return OUT_OF_MEMORY if ran_out else type(error).__name__


def of_the_surroundings(error: BaseException) -> bool:
    """Whether the disk is to blame, however a library says it."""
    if isinstance(error, OSError):
        return error.errno in _SURROUNDINGS
    told = _RUST_ERROR.search(str(error))
    return _TORCH_WRITES in str(error) or (told is not None and int(told[1]) in _SURROUNDINGS)


def write_failure(
    folder: Path,
    error: BaseException,
    *,
    unit: Unit | None,
    rank: int,
    step: int | None = None,
    phase: str = "",
) -> None:
    """Record an exception of this rank; never raises, for another error is already under way."""
    shared = of_the_surroundings(error) or isinstance(error, DataError | WeightsError | ConfigError)
    owner = None if shared else unit
    record = {
        "time": time.time(),
        "unit": [owner.variant, owner.seed] if owner else None,
        "kind": kind_of(error),
        "step": step,
        "phase": phase,
        "message": " ".join(str(error).split())[:2000] or type(error).__name__,
        "exit_code": error.exit_code if isinstance(error, JobError) else 1,
        "traceback": traceback.format_exception(error)[-30:],
    }
    try:
        write_json(folder / f"failure-{rank}.json", record)
    except OSError:  # the disk that failed may be this one
        return


def clear_failures(folder: Path) -> None:
    """Forget earlier records, before a worker starts."""
    for path in folder.glob("failure-*.json"):
        path.unlink(missing_ok=True)


def read_failure(folder: Path) -> Failure | None:
    """The earliest failure among the ranks; None when no rank left one."""
    records = [record for path in sorted(folder.glob("failure-*.json")) if (record := read_json(path))]
    if not records:
        return None
    first = min(records, key=lambda record: float(record["time"]))
    unit = Unit(str(first["unit"][0]), int(first["unit"][1])) if first["unit"] else None
    kind, message, code = str(first["kind"]), str(first["message"]), int(first["exit_code"])
    return Failure(unit, kind, message, code, first.get("step"), str(first.get("phase", "")))


@dataclass
class Ledger:
    """Counts the failures of each unit during one run of the supervisor."""

    seen: dict[Unit, list[str]] = field(default_factory=dict)

    def is_final(self, failure: Failure) -> bool:
        """Note a unit's failure; True when trying again is pointless: the same one twice, or too many."""
        if failure.unit is None:
            return True
        earlier = self.seen.setdefault(failure.unit, [])
        repeated = failure.signature in earlier
        earlier.append(failure.signature)
        return repeated or len(earlier) >= MOST_ATTEMPTS
