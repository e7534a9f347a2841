"""Every error has a documented exit code."""

from __future__ import annotations

from trainer_job import errors
from trainer_job.cli import EXIT_CODES

DOCUMENTED = {0, 1, 2, 3, 42, 70, 75}


def test_every_error_has_a_documented_exit_code() -> None:
    kinds = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(kinds) >= 9
    for kind in kinds:
        assert issubclass(kind, errors.JobError)
        assert kind.exit_code in DOCUMENTED, kind
        assert kind.__name__ in (errors.__doc__ or "")


def test_the_help_names_every_exit_code() -> None:
    for code in DOCUMENTED:
        assert f" {code} " in EXIT_CODES
