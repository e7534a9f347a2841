"""Controls: the same models with the strata taken away, one property at a time.

A variant "uses strata" only if it beats these. They are options of a configuration and run through the same
code, so that whatever differs is the control and nothing else:

- `matched` (with variant `none`): no strata at all, but an adapter of as many parameters as a variant adds.
- `shuffled`: each token carries the stratum of the token half a text away. The text keeps its mixture.
- `random_gate`: strata of an uncalibrated, frozen gate: does it matter where the density lies?
- `lexical`: stratum = token id modulo K: is it geometry, or any partition of the vocabulary?
- `domain_only`: p_k = q_k: does it know more than the text's domain?

It does not know what variants do with strata. B rows, T tokens, K strata, N domains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stratified_models.errors import ModelError
from stratified_models.gate import GateReading

__all__ = ["domain_only", "half_text_away", "lexical", "shuffled"]


def half_text_away(content: Tensor) -> Tensor:
    """For each content token the position of the one ⌊n/2⌋ content tokens further on, cyclically, (B, T).

    `content` is (B, T) bool; n counts a row's content tokens, wherever padding and special tokens lie. The
    other positions point at themselves.
    """
    positions = torch.arange(content.shape[1], device=content.device).expand(content.shape)
    count = content.sum(-1, keepdim=True)  # (B, 1)
    order = content.cumsum(-1) - 1  # a content token's number
    wanted = (order + torch.div(count, 2, rounding_mode="floor")) % count.clamp(min=1)
    # Content positions by number; the others go to a slot behind the last (no sort: ONNX has no stable one).
    places = torch.zeros(content.shape[0], content.shape[1] + 1, dtype=positions.dtype, device=content.device)
    places = places.scatter(-1, torch.where(content, order, content.shape[1]), positions)
    return torch.where(content, places.gather(-1, wanted.clamp(min=0)), positions)


def shuffled(reading: GateReading, content: Tensor) -> GateReading:
    """`reading` with the posterior of every content token moved by half the content length inside its row."""
    index = half_text_away(content)[:, :, None].expand_as(reading.posterior)
    return reading._replace(posterior=reading.posterior.gather(1, index))


def lexical(input_ids: Tensor | None, content: Tensor, strata: int) -> GateReading:
    """Strata by token id modulo K; other positions carry the row's mean, an empty row is uniform.

    Raises:
        ModelError: only embeddings were given.
    """
    if input_ids is None:
        raise ModelError("control 'lexical' reads token ids, but only inputs_embeds came; give input_ids too")
    posterior = F.one_hot(input_ids % strata, strata).to(torch.get_default_dtype())  # (B, T, K)
    share = content.to(posterior.dtype)
    count = share.sum(-1, keepdim=True)  # (B, 1)
    mean = torch.einsum("bt,btk->bk", share, posterior) / count.clamp(min=1)
    occupancy = torch.where(count > 0, mean, torch.full_like(mean, 1 / strata))
    return GateReading(torch.where(content[:, :, None], posterior, occupancy[:, None]), occupancy, None)


def domain_only(weights: Tensor, content: Tensor, strata: int) -> GateReading:
    """Every position of a row carries its domain weights q (B, N), strata beyond N stay empty."""
    occupancy = F.pad(weights, (0, strata - weights.shape[1]))  # (B, K)
    return GateReading(occupancy[:, None].expand(-1, content.shape[1], -1), occupancy, None)
