"""One run over a file: rows in, answers in their order, chunks out; whoever answers is passed in.

It knows neither a server nor an engine. Memory holds a chunk and what is in flight, whatever the size.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.calls import Answer, Failure
from serving.files.columns import flat, kept_names, output_columns
from serving.files.encoders import encoder_for
from serving.files.formats import STDIN, Format, format_to_read, format_to_write
from serving.files.output import Output
from serving.files.progress import Bar, open_bar
from serving.files.readers import Reading, open_rows
from serving.files.rows import Columns, Row
from serving.files.state import State, fingerprint

Answers = Callable[[Iterator[Row]], AsyncIterator[tuple[Row, Answer]]]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done. `asked` is whatever else decides the answers; `shard` takes every n-th row."""

    source: str
    target: Path
    columns: Columns
    asked: Mapping[str, Any]
    chunk: int = 256
    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the bytes of the output, but for the model."""
        read = self.columns
        return {
            "input": None if self.source == STDIN else fingerprint(Path(self.source)),
            "columns": [read.text, read.domain, read.id, list(read.keep), read.fixed_domain],
            "chunk": self.chunk,
            "shard": list(self.shard),
            **self.asked,
        }


class Run:
    """A job that has been opened: what is done already is known, nothing is computed yet. Close it."""

    def __init__(self, job: Job) -> None:
        """Raises `BadInput` for anything that is wrong with the input or the output."""
        self._job = job
        self._kind: Format = format_to_write(str(job.target))
        self._reading: Reading = open_rows(job.source, format_to_read(job.source), job.columns)
        try:
            whole = job.source != STDIN
            self._output = Output(job.target, job.identity, overwrite=job.overwrite, resumable=whole)
        except BaseException:
            self._reading.close()
            raise

    @property
    def state(self) -> State:
        """What is done."""
        return self._output.state

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return self._output.complete

    def close(self) -> None:
        """Let go of the files."""
        self._output.close()
        self._reading.close()

    async def go(self, answers: Answers, *, labels: Sequence[str], made: Mapping[str, Any]) -> State:
        """Answer what is left and put the output in its place; `made` tells the model, and how it computes.

        Raises `BadInput`, and whatever `answers` raises; what was appended until then is kept.
        """
        job, reading = self._job, self._reading
        columns = output_columns(labels, job.columns.keep)
        self._output.begin(encoder_for(self._kind, columns), {**made, "labels": list(labels)})
        first, step = job.shard
        left = itertools.islice(reading.rows, first + step * self.state.rows, None, step)
        with closing(open_bar(job.source, size=reading.size, unit=reading.unit)) as bar:
            await self._work(answers(left), labels, bar)
        self._output.finish()
        return self.state

    async def _work(
        self, answered: AsyncIterator[tuple[Row, Answer]], labels: Sequence[str], bar: Bar
    ) -> None:
        names = kept_names(self._job.columns.keep, labels)
        chunk: list[dict[str, Any]] = []
        failed = 0
        async for row, answer in answered:
            kept = dict(zip(names.values(), row.kept, strict=True))
            chunk.append({"row": row.number, "id": row.item.id, **kept, **flat(answer, labels)})
            failed += isinstance(answer, Failure)
            if len(chunk) == self._job.chunk:
                self._output.append(chunk, failed=failed)
                chunk, failed = [], 0
            state = self.state
            position = self._reading.position()
            bar.show(position=position, rows=state.rows + len(chunk), failed=state.failed + failed)
        if chunk:
            self._output.append(chunk, failed=failed)


@contextmanager
def carried_out(job: Job, *, tell: Callable[[str], None]) -> Iterator[Run]:
    """A run that says in a line what it goes on from, what it leaves, and what is done.

    Raises `BadInput` for anything that is wrong with the input or the output.
    """
    run = Run(job)
    try:
        if run.complete:
            tell(f"{job.target} is complete: {run.state.rows} rows; nothing to do")
        elif run.state.rows:
            tell(f"going on after row {run.state.rows} of {job.target}")
        finished = run.complete
        yield run
        if not finished:
            tell(f"{job.target}: {run.state.rows} rows, {run.state.failed} of them with an error")
    finally:
        run.close()
