"""The figures of an inspection, computed from a reading: plain numbers and lists, ready for JSON.

It knows no model and draws nothing. Entropies and information are in nats. M tokens, K strata, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stratified_models import diagnostics
from trainer_job.inspection.reading import Reading

FEWEST = 60  # tokens of a stratum below which its dimension is not estimated
VOLUMES = {"smallest": 10, "largest": 400, "window": 40}  # wider than the authors' 10: far more power
FALSE_ALARMS = 0.01
SHOWN = 1500


def strata_figures(reading: Reading, *, rounds: int = 200, seed: int = 0) -> dict[str, Any] | None:
    """Use of the strata, and what they tell of domain and label, against shuffled texts."""
    if reading.strata is None:
        return None
    strata = reading.strata
    told: dict[str, dict[str, Any] | None] = {}
    for name, of_rows in (("domain", reading.domains), ("label", reading.labels)):
        labels = of_rows[reading.row]
        known = labels >= 0
        if len(np.unique(labels[known])) < 2:
            told[name] = None
            continue
        found = diagnostics.permutation_baseline(
            strata[known], labels[known], groups=reading.row[known], rounds=rounds, seed=seed
        )
        told[name] = {**found._asdict(), "of": float(_label_entropy(labels[known]))}
    return {
        "occupancy": diagnostics.occupancy(strata).tolist(),
        "effective": diagnostics.effective_strata(strata),
        "effective_per_token": diagnostics.token_effective_strata(strata),
        "smallest_occupancy": float(diagnostics.occupancy(strata).min()),
        "information": told,
    }


def _label_entropy(labels: np.ndarray) -> float:
    return float(diagnostics.entropy(np.unique(labels, return_counts=True)[1] / len(labels)))


def dimension_figures(
    reading: Reading, *, layer: int, ranks: Sequence[int], rounds: int = 200, seed: int = 0
) -> list[dict[str, Any]]:
    """Per stratum (by likeliest) and for all tokens: TwoNN and participation ratio with 95 % intervals."""
    points = reading.states[layer]
    groups: list[tuple[int | None, int | None, np.ndarray]] = [(None, None, points)]
    if reading.strata is not None:
        likeliest = reading.strata.argmax(axis=1)
        groups += [(k, int(ranks[k]), points[likeliest == k]) for k in range(reading.strata.shape[1])]
    return [_dimension(k, rank, group, rounds=rounds, seed=seed) for k, rank, group in groups]


def _dimension(
    stratum: int | None, rank: int | None, points: np.ndarray, *, rounds: int, seed: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {"stratum": stratum, "rank": rank, "tokens": len(points)}
    distinct = np.unique(points, axis=0)
    if len(distinct) < FEWEST:
        return {**entry, "two_nn": None, "participation_ratio": None}
    pairs = diagnostics.nearest_distances(distinct, 2)
    ratios = pairs[:, 1] / np.maximum(pairs[:, 0], 1e-300)
    nearest = diagnostics.bootstrap(diagnostics.two_nn_of_ratios, ratios, rounds=rounds, seed=seed)
    spread = diagnostics.bootstrap(diagnostics.participation_ratio, points, rounds=min(rounds, 50), seed=seed)
    return {**entry, "two_nn": nearest._asdict(), "participation_ratio": spread._asdict()}


def volume_figures(
    reading: Reading,
    *,
    layer: int,
    queries: int = 600,
    strata: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The volume–radius test by layer, and at `layer` by stratum; None with too few tokens.

    `strata` (M, K) is who is in which stratum where the reading does not say: the same tokens, trained.

    A share counts tokens whose p is below the 1 % quantile of the null: a Gaussian of as many points and of
    the dimension that TwoNN finds there. `plain` is the share at α = 10⁻³, beside the null's.
    """
    points = len(reading.row)
    if points < 2 * VOLUMES["largest"]:
        return None
    asked = np.sort(np.random.default_rng(seed).permutation(points)[:queries])
    layers = [_volume(state, asked, seed=seed) for state in reading.states]
    by_stratum = None
    strata = reading.strata if strata is None else strata
    if strata is not None:
        owner = strata[asked].argmax(axis=1)
        found = layers[layer]
        by_stratum = [_shares(found, owner == k, stratum=k) for k in range(strata.shape[1])]
    return {
        "settings": {**VOLUMES, "queries": len(asked), "points": points, "false_alarms": FALSE_ALARMS},
        "layers": [{"layer": place, **_shares(found, None)} for place, found in enumerate(layers)],
        "strata": by_stratum,
    }


def _volume(state: np.ndarray, asked: np.ndarray, *, seed: int) -> dict[str, Any]:
    found = diagnostics.volume_radius_test(state, queries=state[asked], **VOLUMES)
    dimension = diagnostics.two_nn(state)
    null = diagnostics.null_test(dimension, len(state), queries=len(asked), seed=seed, **VOLUMES)
    return {
        "found": found,
        "dimension": dimension,
        "null": null.rates(),
        "levels": [float(np.quantile(p, FALSE_ALARMS)) for p in (null.p_manifold, null.p_bundle)],
    }


def _shares(
    layer: Mapping[str, Any], rows: np.ndarray | None, *, stratum: int | None = None
) -> dict[str, Any]:
    found, (manifold, bundle) = layer["found"], layer["levels"]
    chosen = np.ones(len(found.p_manifold), bool) if rows is None else rows
    entry: dict[str, Any] = {"tokens": int(chosen.sum())} | ({} if stratum is None else {"stratum": stratum})
    if not chosen.any():
        return {**entry, "rejects_manifold": None, "rejects_bundle": None}
    entry |= {
        "rejects_manifold": float((found.p_manifold[chosen] < manifold).mean()),
        "rejects_bundle": float((found.p_bundle[chosen] < bundle).mean()),
        "plain": [float((p[chosen] < diagnostics.ALPHA).mean()) for p in (found.p_manifold, found.p_bundle)],
        "near": float(np.median(found.near[chosen])),
        "far": float(np.median(found.far[chosen])),
    }
    return (
        entry
        if rows is not None
        else {**entry, "two_nn": layer["dimension"], "plain_null": list(layer["null"])}
    )


def example_figures(reading: Reading, *, each: int = 12) -> list[dict[str, Any]] | None:
    """Per stratum the words that it holds beyond chance: by lift, among words seen three times or more."""
    if reading.strata is None:
        return None
    share = diagnostics.occupancy(reading.strata)
    counts = Counter(reading.words)
    words = {word: place for place, word in enumerate(w for w, n in counts.items() if n >= 3)}
    held = np.zeros((len(words), reading.strata.shape[1]))
    for word, posterior in zip(reading.words, reading.strata, strict=True):
        if word in words:
            held[words[word]] += posterior
    names = list(words)
    entries = []
    for k in range(held.shape[1]):
        # Four imagined sightings at the stratum's own share: rare words do not win by luck.
        seen = np.array([counts[name] for name in names], dtype=float)
        lift = (held[:, k] + 4 * share[k]) / (seen + 4) / max(float(share[k]), 1e-9)
        best = np.argsort(-lift, kind="stable")[:each]
        entries.append(
            {
                "stratum": k,
                "occupancy": float(share[k]),
                "words": [{"word": names[i], "lift": float(lift[i]), "seen": int(seen[i])} for i in best],
            }
        )
    return entries


def expert_figures(reading: Reading) -> list[dict[str, Any]]:
    """Per expert block: share of assignments (as the block chose), entropy of a token, of the mean."""
    entries = []
    for block, chosen in zip(reading.routing, reading.chosen, strict=True):
        entries.append(
            {
                "load": (np.bincount(chosen.ravel(), minlength=block.shape[1]) / chosen.size).tolist(),
                "entropy_per_token": float(diagnostics.entropy(block).mean()),
                "entropy_overall": float(diagnostics.entropy(block.mean(axis=0))),
                "most": float(np.log(block.shape[1])),
            }
        )
    return entries


def projection_figures(reading: Reading, *, layer: int, seed: int = 0) -> dict[str, Any]:
    """A sample of tokens in the plane of largest variance at `layer`, with stratum, domain and label ids."""
    plane, share = diagnostics.principal_plane(reading.states[layer])
    shown = np.sort(np.random.default_rng(seed).permutation(len(plane))[:SHOWN])
    strata = None if reading.strata is None else reading.strata[shown].argmax(axis=1).tolist()
    return {
        "layer": layer,
        "variance_share": share,
        "points": np.round(plane[shown], 4).tolist(),
        "stratum": strata,
        "domain": reading.domains[reading.row[shown]].tolist(),
        "label": reading.labels[reading.row[shown]].tolist(),
    }
