"""A process that fetches rows leaves its rank's process group."""

from __future__ import annotations

import os
from multiprocessing import get_context
from typing import Any

from trainer_job.fetchers import Apart


def report(numbers: Any) -> None:
    begun: list[int] = []
    Apart(begun.append)(3)
    Apart()(4)
    numbers.put((os.getpid(), os.getpgid(0), begun))


def test_a_fetcher_is_in_a_group_of_its_own_and_begins_as_it_would_have() -> None:
    context = get_context("fork")
    numbers = context.SimpleQueue()
    process = context.Process(target=report, args=(numbers,))
    process.start()
    own, group, begun = numbers.get()
    process.join()
    assert own == group != os.getpgid(0)
    assert begun == [3]
