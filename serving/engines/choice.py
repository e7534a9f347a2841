"""Which engine runs a bundle: the one that was asked for, or the fastest of those that give the same numbers.

Which engine is faster differs between machines, so "auto" measures, and never goes by name; what it measured
is part of the answer. It stays with exact numbers: bf16 and int8 are run only when `precision` says so. How
an engine is made, and what it needs, is in `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from serving.encoding import Encoder
from serving.engines.base import Engine
from serving.engines.build import ENGINES, Announce, EngineName, Precision, Wishes, build, on_gpu, why_not
from serving.errors import BadStore
from serving.types import EngineItem
from stratified_models.bundle import Bundle
from stratified_models.errors import ExportError

__all__ = ["LENGTHS", "Choice", "EngineName", "Precision", "Wishes", "choose_engine", "compare"]

LENGTHS = (16, 64, 128)  # tokens of the rows that "auto" compares engines by
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and seconds of one row of each of `LENGTHS`, summed, of every engine that was compared."""

    engine: Engine
    seconds: Mapping[str, float] = field(default_factory=dict)


def choose_engine(
    bundle: Bundle, encoder: Encoder, wishes: Wishes, *, clock: Callable[[], float], announce: Announce
) -> Choice:
    """Build the engine.

    An engine that cannot read the bundle's file is left out of "auto", and said aloud. So is torch, silently,
    on a CPU where another one can run the bundle.

    Raises:
        BadStore: it cannot be had.
        ModelError: it does not compute what the manifest says.
    """
    if wishes.engine != "auto":
        if reason := why_not(wishes.engine, bundle, wishes):
            raise BadStore(f"--engine {wishes.engine}: {reason}")
        return Choice(build(wishes.engine, bundle, encoder, wishes, announce))
    reasons = {name: why_not(name, bundle, wishes) for name in ENGINES}
    possible = [name for name, reason in reasons.items() if not reason]
    if not possible:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise BadStore(f"no engine can run this bundle; {told}")
    if on_gpu(wishes):
        return Choice(build(possible[0], bundle, encoder, wishes, announce))
    engines = _build_all(possible, bundle, encoder, wishes, announce)
    if len(engines) == 1:
        return Choice(engines[0])
    announce("comparing the engines")
    choice = compare(engines, longest=bundle.manifest.max_length, clock=clock)
    told = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in choice.seconds.items())
    announce(f"{choice.engine.name} is the fastest: {told}")
    return choice


def _build_all(
    names: Sequence[str], bundle: Bundle, encoder: Encoder, wishes: Wishes, announce: Announce
) -> list[Engine]:
    """Every engine that takes its file; one that computes something else ends it, for something is wrong with
    the bundle. Raises the first engine's error when none takes its file.

    torch comes last, and only when there is nothing else: on a CPU it was the slowest in every comparison
    with a graph, and takes 7 s and 0.35 GB to import.
    """
    engines: list[Engine] = []
    errors: list[ExportError] = []
    for name in sorted(names, key="torch".__eq__):
        if name == "torch" and engines:
            break
        try:
            engines.append(build(name, bundle, encoder, wishes, announce))
        except ExportError as error:
            announce(f"{name} is left out: {error}")
            errors.append(error)
    if not engines:
        raise errors[0]
    return engines


def compare(engines: Sequence[Engine], *, longest: int, clock: Callable[[], float]) -> Choice:
    """The engine with the least sum of median times over `LENGTHS`, by runs in alternation."""
    rows = [EngineItem(ids=(1,) * length) for length in sorted({min(length, longest) for length in LENGTHS})]
    totals = [0.0] * len(engines)
    for row in rows:
        times: list[list[float]] = [[] for _ in engines]
        for _ in range(ROUNDS + 1):
            for place, engine in enumerate(engines):
                started = clock()
                engine.run([row])
                times[place].append(clock() - started)
        for place, taken in enumerate(times):
            totals[place] += median(taken[1:])  # the first round pays for allocations
    fastest = engines[totals.index(min(totals))]
    return Choice(fastest, {engine.name: total for engine, total in zip(engines, totals, strict=True)})
