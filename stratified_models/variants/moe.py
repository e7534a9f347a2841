"""`moe`: strata choose experts.

It does not know how strata are found, nor which encoder it sits on. In every second block from the gate
upwards, E copies of the pretrained feed-forward network (sparse upcycling, Komatsuzaki et al. 2022) replace
it:

    π = softmax(Q x + pᵀS);   I = top-2(sg[π] + η);   w = π_I / Σ π_I;   y = Σ_{e∈I} w_e FFN_e(x)

η is a buffer outside the gradient (Wang et al. 2024): after an optimizer step it rises for experts that had
less than the mean load. It moves the selection, never the weights. S must not start at zero: with all
scores tied, experts that are always picked together would stay identical for ever. Equal experts and Σw = 1
keep the block's start exact.

B rows, S tokens, D width, F inner width, K strata, E experts, M expert blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.integrations.moe import grouped_mm_experts_forward

from stratified_models.backbone import Family
from stratified_models.config import StratifiedConfig
from stratified_models.hooks import BlockHooks, ExpertTrace, Strata, Variant

__all__ = ["ANSWERING", "BIAS_STEP", "ExpertBlock", "Experts", "StratifiedExperts"]

ANSWERING = 2
BIAS_STEP = 0.01


class Experts(nn.Module):
    """E feed-forward networks as stacks of tensors, named as `grouped_mm_experts_forward` wants them."""

    has_bias, has_gate, is_transposed, has_post_expert_norm, _is_expert_parallel = (
        True,
        False,
        False,
        False,
        False,
    )

    def __init__(
        self, *, experts: int, width: int, inner: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.num_experts, self.act_fn = experts, activation
        self.up_proj = nn.Parameter(torch.empty(experts, inner, width))
        self.up_proj_bias = nn.Parameter(torch.empty(experts, inner))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))
        self.down_proj_bias = nn.Parameter(torch.empty(experts, width))
        self.execution: Literal["auto", "dense", "grouped"] = "auto"

    @torch.no_grad()
    def initialise_(self) -> None:
        """Draw one network and copy it: experts start equal, whether pretrained or not."""
        init.copy_(self.up_proj, torch.empty(self.up_proj.shape[1:]).normal_(std=0.02))
        init.copy_(self.down_proj, torch.empty(self.down_proj.shape[1:]).normal_(std=0.02))
        init.zeros_(self.up_proj_bias)
        init.zeros_(self.down_proj_bias)

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Weighted answers of the chosen experts.

        Args:
            x: tokens, (n, D).
            chosen, weights: expert ids and their weights, (n, 2).
        """
        dense = self.execution == "dense" or (self.execution == "auto" and torch.compiler.is_exporting())
        if not dense:
            if x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
                return self._one_by_one(x, chosen, weights)
            answer: Tensor = grouped_mm_experts_forward(self, x, chosen, weights)
            return answer
        share = torch.zeros(x.shape[0], self.num_experts, dtype=weights.dtype, device=x.device)
        share = share.scatter(1, chosen, weights).to(x.dtype)  # (n, E)
        y = torch.zeros_like(x)
        for e in range(self.num_experts):
            inner = self.act_fn(F.linear(x, self.up_proj[e], self.up_proj_bias[e]))
            y = y + share[:, e, None] * F.linear(inner, self.down_proj[e], self.down_proj_bias[e])
        return y

    def _one_by_one(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Each expert on the tokens that chose it: on a CPU quicker than grouped products."""
        y = torch.zeros_like(x)
        for e in range(self.num_experts):
            token, rank = torch.where(chosen == e)
            inner = self.act_fn(F.linear(x[token], self.up_proj[e], self.up_proj_bias[e]))
            answer = F.linear(inner, self.down_proj[e], self.down_proj_bias[e])
            y.index_add_(0, token, (answer * weights[token, rank, None]).to(y.dtype))
        return y


class ExpertBlock(BlockHooks):
    """Router, experts, and the bias that balances them."""

    bias: Tensor
    load: Tensor

    def __init__(
        self,
        *,
        experts: int,
        strata: int,
        width: int,
        inner: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
    ) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.empty(experts, width))
        self.stratum_map = nn.Parameter(torch.empty(strata, experts))
        self.experts = Experts(experts=experts, width=width, inner=inner, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("bias", torch.empty(experts))
        self.register_buffer("load", torch.empty(experts), persistent=False)

    def initialise_(self) -> None:
        """Zero the router; give each stratum a first and a second expert, so that no two experts tie."""
        strata, experts = self.stratum_map.shape
        start = torch.zeros(strata, experts)
        for k in range(strata):
            start[k, k % experts] = 1.0
            start[k, (k + 1 + (k // experts) % (experts - 1)) % experts] = 0.5
        init.copy_(self.stratum_map, start)
        for zero in (self.router, self.bias, self.load):
            init.zeros_(zero)

    def probabilities(self, x: Tensor, strata: Strata) -> Tensor:
        """π of every token, (B, S, E), before the selection bias."""
        dtype = self.router.dtype
        scores = x.to(dtype) @ self.router.T + strata.queries.to(dtype) @ self.stratum_map
        return torch.softmax(scores, dim=-1)

    def feed_forward(
        self, x: Tensor, ffn: Callable[[Tensor], Tensor], strata: Strata
    ) -> tuple[Tensor, ExpertTrace | None]:
        """Route every token to two experts; report loads and probabilities over valid tokens."""
        with torch.autocast(device_type=x.device.type, enabled=False):
            probability = self.probabilities(x, strata)  # (B, S, E)
            chosen = (probability.detach() + self.bias).topk(ANSWERING, dim=-1).indices  # (B, S, 2)
            picked = probability.gather(-1, chosen)
            weights = picked / picked.sum(-1, keepdim=True)
            valid = strata.valid.to(probability.dtype)[..., None]  # (B, S, 1)
            hits = torch.zeros_like(probability).scatter(-1, chosen, 1.0)
            trace = ExpertTrace((hits * valid).sum((0, 1)).detach(), (probability * valid).sum((0, 1)))
        answer = self.experts(x.flatten(0, 1), chosen.flatten(0, 1), weights.flatten(0, 1)).view_as(x)
        return self.dropout(answer), trace


class StratifiedExperts(Variant):
    """An `ExpertBlock` on every second block from the gate upwards, the last of a pair."""

    needs_every_token: ClassVar[bool] = True

    def __init__(self, config: StratifiedConfig, family: Family) -> None:
        super().__init__(config, family)
        self.replaces_ffn = config.stratified_blocks[1::2]
        encoder = config.backbone_config
        for index in self.replaces_ffn:
            self.blocks[str(index)] = ExpertBlock(
                experts=config.num_experts,
                strata=config.num_strata,
                width=config.hidden_size,
                inner=family.ffn_width(encoder),
                activation=family.ffn_activation(encoder),
                dropout=family.ffn_dropout(encoder),
            )

    def _expert_blocks(self) -> list[ExpertBlock]:
        return [block for block in self.blocks.values() if isinstance(block, ExpertBlock)]

    @torch.no_grad()
    def adopt_ffn_(self, index: int, tensors: Sequence[Tensor]) -> None:
        """Copy the pretrained network into every expert of block `index`."""
        experts = self.blocks[str(index)].get_submodule("experts")
        for name, tensor in zip(
            ("up_proj", "up_proj_bias", "down_proj", "down_proj_bias"), tensors, strict=True
        ):
            experts.get_parameter(name).copy_(tensor)

    @torch.no_grad()
    def observe_(self, traces: Sequence[ExpertTrace]) -> None:
        """Add a training forward's loads to those since the last balancing."""
        for block, trace in zip(self._expert_blocks(), traces, strict=True):
            block.load.add_(trace.load)

    @torch.no_grad()
    def balance_(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """η += 0.01·sign(mean load − load), from loads summed over ranks; then count anew."""
        blocks = self._expert_blocks()
        loads = torch.stack([block.load for block in blocks])  # (M, E)
        loads = loads if reduce is None else reduce(loads)
        for block, load in zip(blocks, loads, strict=True):
            block.bias.add_(BIAS_STEP * torch.sign(load.mean() - load))
            block.load.zero_()

    def backbone_parameters(self) -> set[str]:
        """The experts: pretrained weights, so they learn at the encoder's rate."""
        return {name for name, _ in self.named_parameters() if ".experts." in name}
