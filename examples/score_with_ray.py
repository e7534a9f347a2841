"""Scores a file on every core of a cluster, without a service: score_with_ray.py MODELS IN OUT

Each worker loads the bundle once and answers batch after batch (`serving.scoring`): the same rules and the
same numbers as the service. IN and OUT are folders or files of Parquet; IN has a column `text`, and may have
`domain`. Needs `pip install "ray[data]"`. On Spark the same class goes into `mapInPandas`, one a partition.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.scoring.scorer import Scorer


class Worker:
    """What Ray makes once for each process, and calls with batches of columns."""

    def __init__(self, models: str, threads: int = 1) -> None:
        """`models`: a sweep's results or one bundle, where every node can read it."""
        self._scorer = Scorer(models, threads=threads)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with the columns of the answers."""
        texts = [str(text or "") for text in batch["text"]]
        domains = [str(name or "") for name in batch["domain"]] if "domain" in batch else None
        answers = self._scorer.table(texts, domains)
        return {**batch, **{f"answer_{name}": _column(values) for name, values in answers.items()}}

    def close(self) -> None:
        """Free the model."""
        self._scorer.close()


def _column(values: list[Any]) -> Any:
    """One value a row, whatever they are: lists too."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def main(models: str, source: str, target: str) -> None:
    """Read, score on all cores, write."""
    import ray

    scored = ray.data.read_parquet(source).map_batches(
        Worker,
        fn_constructor_args=(models,),
        batch_size=1024,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(),
    )
    scored.write_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:4])
