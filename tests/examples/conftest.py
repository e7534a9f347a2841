"""The real service on tiny bundles, once for all examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import fake_service
from tests.serving.bundles import results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    with fake_service(None, models=results()) as target:
        yield target
