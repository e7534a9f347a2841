"""What the blocks above the gate say of a text's domain, read once they have run.

The domain head reads at the gate's layer, for gate and class bias need its word there. What it is asked
afterwards, which domain a text is of, can be read deeper, where words have met more of their context: linear
probes (Alain & Bengio 2016, https://arxiv.org/abs/1610.01644) of the mean hidden states after the first R
blocks that a variant may change. With them, the head speaks to the model alone, as it did in training; probes
and table of words speak to whoever asks.

The probes are fitted once, after training, to the same rows as the head, live in buffers, and are read in the
same forward pass. In training they are silent, so the head's own loss stays its own.

M training rows, B rows, T tokens, D width, N domains, R blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.domain_fit import fit_linear, known_rows, mean_loss
from stratified_models.errors import ModelError

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.config import StratifiedConfig

__all__ = ["DomainProbes", "ProbeFit", "check_blocks", "deeper_features", "fit_domain_probes_", "most_blocks"]


class DomainProbes(nn.Module):
    """One linear classifier of R means side by side, (B, R·D); all zero until it is fitted."""

    weight: Tensor
    bias: Tensor

    def __init__(self, *, width: int, domains: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.register_buffer("weight", torch.empty(domains, blocks * width))
        self.register_buffer("bias", torch.empty(domains))

    def initialise_(self) -> None:
        """No block says anything."""
        init.zeros_(self.weight)
        init.zeros_(self.bias)

    def forward(self, means: Sequence[Tensor]) -> Tensor:
        """Scores (B, N) of the R mean hidden states over content tokens, (B, D) each."""
        with torch.autocast(device_type=self.weight.device.type, enabled=False):
            return torch.cat(list(means), -1).to(self.weight.dtype) @ self.weight.T + self.bias


def most_blocks(config: StratifiedConfig) -> int:
    """How many blocks above the gate's layer compute every token: all but the last."""
    return len(config.stratified_blocks) - 1


def check_blocks(config: StratifiedConfig, blocks: int, *, least: int = 0) -> None:
    """Refuse more blocks than compute all tokens: the last may compute one alone. Raises ModelError."""
    most = most_blocks(config)
    if not least <= blocks <= most:
        raise ModelError(
            f"domain_blocks {blocks}: this encoder has {most} blocks above the gate, without the last; "
            f"set {least} … {most}"
        )


class ProbeFit(NamedTuple):
    """How a fit went: its rows; mean cross-entropy, in nats, of no reading and of the probes'; and what the
    probes say of every row that was given, (M, N)."""

    rows: int
    before: float
    after: float
    said: Tensor


@torch.no_grad()
def deeper_features(
    model: StratifiedForSequenceClassification, batches: Iterable[Mapping[str, Tensor]], *, blocks: int
) -> Tensor:
    """What probes of `blocks` blocks read of rows whose domain is not given, (M, R·D), on the CPU in float32.

    Args:
        model: its mode is as before; its head must be fitted already, for strata follow its word.
        batches: each holds `input_ids` and `attention_mask`, (B, T).
        blocks: R.

    Raises:
        ModelError: there is no batch, or there are not so many blocks.
    """
    check_blocks(model.config, blocks, least=1)
    training = model.training
    model.train(False)
    found = []
    for batch in batches:
        tokens = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
        means = model.encode(*tokens, every_token=False, blocks=blocks).deeper
        found.append(torch.cat(means, -1).float().cpu())
    model.train(training)
    if not found:
        raise ModelError("no rows came, so nothing can be read of them; give batches of them")
    return torch.cat(found)


def fit_domain_probes_(
    model: StratifiedForSequenceClassification,
    features: Tensor,
    domain_id: Tensor,
    *,
    blocks: int,
    penalty: float | None = None,
    weights: Tensor | None = None,
) -> ProbeFit:
    """Fit probes as the head is fitted (`fit_domain_head_`), to `deeper_features` (M, R·D) of training rows.

    Args:
        model: changed in place, its configuration too: what is saved from now on holds the probes.
        features: of `blocks` blocks; `domain_id` the rows' domains, (M,), −1 where unknown.
        blocks: R.
        penalty: λ of the ridge; None is the head's.
        weights: how much each row counts, (M,); None is one each.

    Raises:
        ModelError: no row of a known domain, features that are not finite, or not so many blocks.
    """
    check_blocks(model.config, blocks, least=1)
    domains = len(model.config.domains)
    x, domain, weights = known_rows(features, domain_id, weights, domains=domains)
    weight, bias = fit_linear(x, domain, domains=domains, penalty=penalty, weights=weights)
    probes = DomainProbes(width=model.config.hidden_size, domains=domains, blocks=blocks)
    with torch.no_grad():
        probes.weight.copy_(weight)
        probes.bias.copy_(bias)
    model.config.domain_blocks = blocks
    model.domain_probes = probes.to(model.device)
    before, after = (mean_loss(scores, domain, weights) for scores in (0 * x @ weight.T, x @ weight.T + bias))
    return ProbeFit(len(x), float(before), float(after), features.cpu().double() @ weight.T + bias)
