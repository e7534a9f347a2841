"""Processes that fetch rows beside the one that trains (`hardware.workers`).

torchrun hands SIGTERM on to the process group of each rank. A fetcher in that group would die of it, and its
rank with it, before the checkpoint for which the signal asks is saved. It does not know what is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Apart:
    """What a fetcher does first: it leaves its rank's process group, then begins as it would have.

    Its rank still ends it, and it ends by itself when its rank is gone.
    """

    begin: Callable[[int], None] | None = None

    def __call__(self, number: int) -> None:
        """Called in fetcher `number`."""
        os.setpgid(0, 0)
        if self.begin is not None:
            self.begin(number)
