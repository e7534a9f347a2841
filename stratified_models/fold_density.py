"""A density fitted anew in a gate's coordinates: what geometry would be, had the gate not seen a domain.

The gate's own density has learned from every domain, so it cannot say how strange one of them would be. Here
its strata are placed again on the tokens of some rows alone, as they are before training (`calibration`), by
the finished encoder. Only the coordinates remain those of all domains. It does not know who is left out.

M rows, S tokens of a row, D width, g coordinates, K strata.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stratified_models.calibration import LIMIT, place_strata_
from stratified_models.gate import StratumGate, mixture_log_density

__all__ = ["SAMPLE", "fit_density", "spread_over"]

SAMPLE = 32  # content tokens of a row: beside what rows differ by, a mean over them is that over all
LEAST = 4  # vectors a stratum, and as many as there are coordinates: with fewer there is nothing to place


def spread_over(hidden: Tensor, content: Tensor, most: int = SAMPLE) -> tuple[Tensor, Tensor]:
    """Up to `most` content tokens of each row, evenly spread.

    Args:
        hidden: states of tokens, (B, T, D); `content` which of them count, (B, T) bool.

    Returns:
        The tokens' states, (B, S, D), and which of the S are there, (B, S) bool.
    """
    count = content.sum(-1, keepdim=True)  # (B, 1)
    wanted = torch.arange(most, device=content.device).expand(len(content), most)
    wanted = torch.where(count > most, wanted * count // most, wanted)  # the n-th content token of the row
    order = (~content).to(torch.int8).argsort(dim=-1, stable=True)  # places of content tokens come first
    places = order.gather(1, wanted.clamp(max=content.shape[1] - 1))
    return hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1])), wanted < count


def fit_density(
    coordinates: Tensor, ranks: Sequence[int], *, seed: int = 0
) -> Callable[[Tensor], Tensor] | None:
    """Place strata of `ranks` on tokens, and give the function that says how unlikely others are.

    Args:
        coordinates: u of each row's tokens, (M, S, g), NaN where a row has fewer.
        ranks: r_k, as the gate's.
        seed: of the sample where there are more tokens than `calibration.LIMIT`, and of clustering.

    Returns:
        From coordinates like these to negative log-densities per coordinate, in nats, mean over the row's
        tokens, (M,), 0 for a row without any; None with too few tokens.
    """
    present = ~coordinates.isnan().any(-1)
    points, width = coordinates[present].double(), coordinates.shape[-1]
    if len(points) < max(width, LEAST * len(ranks)):
        return None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(points), generator=generator)[:LIMIT]
    gate = StratumGate(width=width, coordinates=width, ranks=ranks, domains=1).double()
    with torch.random.fork_rng(devices=[]):  # what it draws is overwritten, and is nobody else's loss
        gate.initialise_()
    place_strata_(gate, points[chosen], generator)
    with torch.no_grad():
        terms = gate.computed_terms()

    def unlikely(asked: Tensor) -> Tensor:
        there = ~asked.isnan().any(-1)  # (M, S)
        density = mixture_log_density(asked.double().nan_to_num(0.0), terms).logsumexp(-1)
        return -(density * there).sum(-1) / (width * there.sum(-1).clamp(min=1))

    return unlikely
