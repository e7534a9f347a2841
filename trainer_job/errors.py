"""What can go wrong in the job, as one tree; each class carries the exit code that the process ends with.

    JobError (1)
    ├── ConfigError (2)            the configuration or the command line cannot work
    │   └── ResultsMismatch (2)    the results folder belongs to another configuration
    ├── DataError (3)              a data source is missing, unreadable or wrongly mapped
    ├── WeightsError (3)           the pretrained backbone or its tokenizer is missing or does not fit
    ├── TrainingFailed (42)        training cannot succeed: the same failure came back after a retry
    ├── PartialFailure (70)        some units failed for good, the others are complete
    ├── Preempted (75)             asked to stop; checkpoints are saved, the next run goes on
    ├── ExportRefused (1)          an exported file differs from the model, or loses more than allowed
    └── Locked (1)                 another job works in the results folder

It does not know who raises or prints them. Messages give the value, the rule and the cure, in one line.
"""

from __future__ import annotations


class JobError(Exception):
    """Base of all failures that the job explains by itself; `exit_code` is what the process ends with."""

    exit_code: int = 1


class ConfigError(JobError):
    """The configuration or the command line is wrong; nothing was loaded yet."""

    exit_code = 2


class ResultsMismatch(ConfigError):  # noqa: N818 - an outcome, named as people say it
    """The results folder holds units of another configuration or of other data."""


class DataError(JobError):
    """A data source is unavailable or invalid."""

    exit_code = 3


class WeightsError(JobError):
    """The backbone's weights or tokenizer are unavailable or invalid."""

    exit_code = 3


class TrainingFailed(JobError):  # noqa: N818 - an outcome, named as people say it
    """Training failed for good: not finite again after a retry, or the same exception twice."""

    exit_code = 42


class PartialFailure(JobError):  # noqa: N818 - an outcome, named as people say it
    """Some units failed for good while the others are complete."""

    exit_code = 70


class Preempted(JobError):  # noqa: N818 - an outcome, named as people say it
    """The job was asked to stop; what was running is saved as a checkpoint."""

    exit_code = 75


class ExportRefused(JobError):  # noqa: N818 - an outcome, named as people say it
    """An exported file does not compute what the model does, or is less accurate than the bound allows."""

    exit_code = 1


class Locked(JobError):  # noqa: N818 - an outcome, named as people say it
    """Another job holds the results folder."""

    exit_code = 1
