"""`--shard I/N`: unit I, I+N, I+2N … of the sweep, for jobs on one volume, as an Indexed Job runs them.

It does not know how the jobs keep out of each other's way (`leases` does), nor how results are put together
(`results` does, from whatever is finished).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer_job.errors import ConfigError
from trainer_job.units import Unit

INDEX = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int
    count: int

    @property
    def name(self) -> str:
        """For folders and messages."""
        return f"shard-{self.index}-of-{self.count}"

    def of(self, units: Sequence[Unit]) -> list[Unit]:
        """This shard's units."""
        return list(units[self.index :: self.count])


def parse_shard(text: str, environ: Mapping[str, str]) -> Shard:
    """`2/5`, or `auto/5` for the index that Kubernetes gives a pod of an Indexed Job. Raises ConfigError."""
    index, separator, count = text.partition("/")
    if index == "auto":
        index = environ.get(INDEX, "")
        if not index.isdigit():
            raise ConfigError(
                f"--shard {text!r}: {INDEX} is {index or 'not set'}; run in an Indexed Job, or say I/N"
            )
    if not separator or not index.isdigit() or not count.isdigit() or int(index) >= int(count):
        raise ConfigError(f"--shard {text!r}: not of the form I/N with I from 0 to N-1, as in 0/5, or auto/5")
    return Shard(int(index), int(count))
