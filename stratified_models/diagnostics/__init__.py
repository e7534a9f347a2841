"""Measuring what strata are: use, information, dimension, local geometry. Numpy alone, no model.

`information` (who is in which stratum, and what that tells), `dimension` (TwoNN and participation ratio),
`volume` (the volume–radius test of Robinson et al.), `ranking` (AUROC), `likeness` (which groups are taken
for each other) and `projection` (two dimensions to look at) are pure functions of arrays: the job, the
service and a notebook may all call them.
"""

from __future__ import annotations

from stratified_models.diagnostics.dimension import (
    Interval,
    bootstrap,
    nearest_distances,
    participation_ratio,
    two_nn,
    two_nn_of_ratios,
)
from stratified_models.diagnostics.information import (
    Baseline,
    divergence,
    effective_strata,
    entropy,
    mutual_information,
    occupancy,
    permutation_baseline,
    token_effective_strata,
)
from stratified_models.diagnostics.likeness import alike_pairs, joined
from stratified_models.diagnostics.projection import principal_plane
from stratified_models.diagnostics.ranking import auroc
from stratified_models.diagnostics.volume import ALPHA, VolumeTest, null_test, volume_radius_test

__all__ = [
    "ALPHA",
    "Baseline",
    "Interval",
    "VolumeTest",
    "alike_pairs",
    "auroc",
    "bootstrap",
    "divergence",
    "effective_strata",
    "entropy",
    "joined",
    "mutual_information",
    "nearest_distances",
    "null_test",
    "occupancy",
    "participation_ratio",
    "permutation_baseline",
    "principal_plane",
    "token_effective_strata",
    "two_nn",
    "two_nn_of_ratios",
    "volume_radius_test",
]
