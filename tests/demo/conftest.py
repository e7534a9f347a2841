"""A service with the shipped fake engine, once for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.asking import Asker
from serving.engines.fake import FakeSource
from tests.live import fake_service


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    with fake_service(FakeSource("none", "routing")) as target:
        yield target


@pytest.fixture
def asker(target: str) -> Iterator[Asker]:
    asker = Asker(target)
    yield asker
    asker.close()
