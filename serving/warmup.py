"""The first runs of an engine: they make it ready, and they measure it before a caller has to wait for the
answer.

Pure of torch and of models: whatever can `run` can be measured. It gives tokens a second by length, the batch
size in tokens beyond which a larger batch no longer pays, and the padding that a batch of its own is worth.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.costs import CostModel
from serving.engines.base import Engine
from serving.types import EngineItem

ROW = 64  # tokens a row when batch sizes are compared: a usual text
BUDGETS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
WORTH = 1.05  # a larger batch must be this much faster a token; latency grows with it
PATIENCE = 0.25  # seconds; a longer batch keeps those who come while it runs waiting too long
SHARED = 8  # rows of the batch whose cost is set against a row of its own
JOIN = 0.5  # of what a batch of its own costs: one of nearer length may still come
TOKEN = 1  # any id: speed does not depend on which


def seed_costs(engine: Engine, costs: CostModel, *, max_tokens: int, clock: Callable[[], float]) -> None:
    """Run a row of each length bucket twice; the second time counts, for the first pays for allocations."""
    length = 16
    while length // 2 < max_tokens:
        row = EngineItem(ids=(TOKEN,) * min(length, max_tokens))
        engine.run([row])
        costs.observe(longest=len(row.ids), tokens=len(row.ids), seconds=_timed(engine, [row], clock))
        length *= 2


def best_batch_tokens(engine: Engine, *, max_tokens: int, clock: Callable[[], float]) -> int:
    """The smallest budget of `BUDGETS` after which the next one gains less than `WORTH`, or takes longer than
    `PATIENCE`; at least one full row. The better of two runs counts: other work on the machine only slows.
    """
    row = EngineItem(ids=(TOKEN,) * min(ROW, max_tokens))
    best, best_rate = BUDGETS[0], 0.0
    for budget in BUDGETS:
        rows = [row] * max(1, budget // len(row.ids))
        seconds = min(_timed(engine, rows, clock) for _ in range(2))
        rate = budget / seconds if seconds > 0 else float("inf")
        if rate < best_rate * WORTH or (best_rate and seconds > PATIENCE):
            break
        best, best_rate = budget, rate
        if 2 * seconds > PATIENCE:  # the next batch is twice as large
            break
    return max(best, max_tokens)


def best_padding_tokens(engine: Engine, *, max_tokens: int, clock: Callable[[], float]) -> int:
    """Padding that is as dear as `JOIN` of the fixed part of a batch, in tokens, from 1 to one full row.

    A batch of n rows takes a + b·n·length seconds. A text that joins one costs b for each token of padding
    that it brings; alone it costs a: it is worth a / b tokens. On a processor that is a few; on a GPU, where
    calls are dear and tokens cheap, up to any number. The best of three runs counts.
    """
    length = min(ROW // 2, max_tokens)
    row = EngineItem(ids=(TOKEN,) * length)
    alone, shared = (min(_timed(engine, [row] * n, clock) for _ in range(3)) for n in (1, SHARED))
    token = (shared - alone) / ((SHARED - 1) * length)
    fixed = max(0.0, alone - token * length)
    if token * max_tokens <= JOIN * fixed:
        return max_tokens
    return max(1, round(JOIN * fixed / token))


def _timed(engine: Engine, rows: list[EngineItem], clock: Callable[[], float]) -> float:
    started = clock()
    engine.run(rows)
    return clock() - started
