"""Where a record comes from is told in full."""

from __future__ import annotations

from datetime import datetime

import pytest

from trainer_job import provenance


def test_the_environment_names_versions_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance.environment.cache_clear()
    monkeypatch.setenv("STRATIFIED_REVISION", "abc")
    found = provenance.environment()
    provenance.environment.cache_clear()
    assert found["commit"] == "abc"
    assert found["packages"]["torch"]


def test_times_are_utc_in_whole_seconds() -> None:
    found = provenance.now()
    assert found.endswith("Z")
    assert datetime.fromisoformat(found).utcoffset() is not None
