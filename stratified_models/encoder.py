"""The encoder with its gate: ids → hidden states, and what is read on the way, the same for every variant.

It does not know what a variant does between the sub-layers (see `hooks`), which family the encoder is of (see
`backbone`), nor that there are labels. Its parts are built by the classifier, `base`, which is one with it.

What is unusual here:
- Blocks are walked sub-layer by sub-layer; at block ℓ_g the gate reads the tokens' strata once, for all
  blocks.
- Where pooling reads one position, the last block computes that position alone, unless a loss needs
  statistics of its experts.

B rows, T tokens, S tokens of the last block, D width, N domains, K strata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stratified_models import controls
from stratified_models.backbone import Family
from stratified_models.calibration import GateFit, calibrate_
from stratified_models.config import StratifiedConfig
from stratified_models.domain_probes import DomainProbes
from stratified_models.domain_words import DomainWords
from stratified_models.domains import DomainHead, DomainReading
from stratified_models.fold_density import spread_over
from stratified_models.gate import GateReading, StratumGate
from stratified_models.hooks import BlockHooks, ExpertTrace, Strata, Variant
from stratified_models.objective import Encoded, content_mean
from stratified_models.tokens import never_empty, token_masks
from stratified_models.unknown import FeatureScores

__all__ = ["StratifiedEncoder"]


class StratifiedEncoder(PreTrainedModel):  # type: ignore[no-untyped-call]  # untyped in transformers
    """Blocks below the gate, what gate and domain head read there, and the blocks above it.

    The parts are named here and built by the class that derives from it, in the order in which they draw
    their weights.
    """

    config: StratifiedConfig
    family: Family
    backbone: PreTrainedModel
    domain_head: DomainHead
    domain_words: DomainWords | None
    domain_probes: DomainProbes | None
    variant: Variant
    gate: StratumGate | None
    unknown: FeatureScores | None
    plain: BlockHooks
    gradient_checkpointing: bool

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        domain_id: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        every_token: bool = True,
        blocks: int | None = None,
    ) -> Encoded:
        """Hidden states after the last block, with what gate, domain head and experts say on the way.

        `every_token` False allows the last block to compute only what pooling reads: S = 1. `blocks` is how
        many blocks above the gate have their content means kept; None is what the probes read.
        """
        input_ids, attention_mask = never_empty(input_ids, attention_mask)
        hidden, mask, valid, content = self._run_lower(input_ids, attention_mask, inputs_embeds)
        strata, read = Strata.nothing(valid), self.family.gate_input(hidden)
        pooled = content_mean(read, content)
        domain, words = self._read_domain(pooled, domain_id, input_ids, content)
        gate = self._read_strata(read, pooled, content, domain.weights, input_ids)
        if gate is not None:
            strata = Strata(gate.posterior, gate.posterior, valid)
        if blocks is None:
            probes = self._probes()
            blocks = 0 if probes is None else probes.blocks
        hidden, traces, lower = self._run_upper(hidden, mask, strata, every_token, keep=blocks)
        deeper = [content_mean(self.family.gate_input(state), content) for state in lower]
        domain = self._read_deeper(domain, deeper, words)
        scores = {} if self.unknown is None else self.unknown(pooled, content.sum(-1))
        return Encoded(hidden, domain, gate, traces, content, valid, pooled, scores, deeper)

    def _run_lower(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Blocks 0 … ℓ_g − 1: hidden states (B, T, D), attention's mask, valid and content tokens (B, T)."""
        hidden = self.family.embed(self.backbone, input_ids, inputs_embeds)
        valid, content = self._token_masks(input_ids, attention_mask, hidden)
        mask, strata = self.family.mask(valid), Strata.nothing(valid)
        for index in range(self.config.gate_layer):
            hidden, _ = self._run_block(index, hidden, mask, strata)
        return hidden, mask, valid, content

    def _token_masks(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Valid and content tokens, each (B, T) bool."""
        return token_masks(input_ids, attention_mask, hidden, special=self.config.special_token_ids)

    def _read_domain(
        self, pooled: Tensor, domain_id: Tensor | None, input_ids: Tensor | None, content: Tensor
    ) -> tuple[DomainReading, Tensor | None]:
        """The rows' domains, by the head and, where there is a table of words and there are ids, by both; and
        what the table says, (B, N). Where there are probes, it speaks with them and not here."""
        words = None
        if self.domain_words is not None and input_ids is not None:
            words = self.domain_words(input_ids, content)
        early = words if self._probes() is None else None
        return cast(DomainReading, self.domain_head(pooled, domain_id, early)), words

    def _probes(self) -> DomainProbes | None:
        return None if self.training else self.domain_probes

    def _read_deeper(
        self, reading: DomainReading, means: list[Tensor], words: Tensor | None
    ) -> DomainReading:
        """The reading with the probes' scores in place of the head's, where there are probes; the weights,
        which gate and class bias have had, stay."""
        probes = self._probes()
        if probes is None or len(means) != probes.blocks:
            return reading
        scores: Tensor = probes(means)
        return reading._replace(logits=scores if words is None else scores + words)

    def _read_strata(
        self, hidden: Tensor, pooled: Tensor, content: Tensor, domains: Tensor, input_ids: Tensor | None
    ) -> GateReading | None:
        """The tokens' strata: of the gate, or of the control that stands in its place."""
        control, strata = self.config.control, self.config.num_strata
        if control == "lexical":
            return controls.lexical(input_ids, content, strata)
        if control == "domain_only":
            return controls.domain_only(domains, content, strata)
        if self.gate is None:
            return None
        reading: GateReading = self.gate(hidden, pooled, content, domains)
        return controls.shuffled(reading, content) if control == "shuffled" else reading

    def _run_upper(
        self, hidden: Tensor, mask: Tensor, strata: Strata, every_token: bool, *, keep: int = 0
    ) -> tuple[Tensor, list[ExpertTrace], list[Tensor]]:
        """Blocks ℓ_g … L−1, and the variant's mixture of their hidden states; and those after the first
        `keep` of them."""
        traces: list[ExpertTrace] = []
        states = [hidden]
        kept: list[Tensor] = []
        *lower, last = self.config.stratified_blocks
        first = self.family.reads_first and not every_token
        for index in (*lower, last):
            hidden, trace = self._run_block(index, hidden, mask, strata, first=first and index == last)
            traces += [] if trace is None else [trace]
            states = [*states, hidden] if self.variant.mixes_states else [hidden]
            kept += [hidden] if len(kept) < keep else []
        mixed = self.variant.mix(states, strata.first() if first else strata)
        return self.family.finish(self.backbone, mixed), traces, kept

    def _hooks(self, index: int) -> BlockHooks:
        hooks = dict(self.variant.blocks.items()).get(str(index), self.plain)
        return cast(BlockHooks, hooks)

    def _run_block(
        self, index: int, hidden: Tensor, mask: Tensor, strata: Strata, *, first: bool = False
    ) -> tuple[Tensor, ExpertTrace | None]:
        block, hooks = self.family.block(self.backbone, index), self._hooks(index)
        arguments = (block, hooks, hidden, mask, strata, first)
        if self.gradient_checkpointing and self.training:
            saved = self._gradient_checkpointing_func(self.family.run_block, *arguments)
            return cast("tuple[Tensor, ExpertTrace | None]", saved)
        return self.family.run_block(*arguments)

    @torch.no_grad()
    def calibrate_gate_(self, batches: Iterable[Mapping[str, Tensor]], *, seed: int) -> GateFit:
        """Place the gate's density on the content tokens of `batches`; without one, or frozen, do nothing.

        Args:
            batches: each holds `input_ids` and `attention_mask`, (B, T); rows of the training split alone.
            seed: of clustering, and of the sample where there are more vectors than `calibration.LIMIT`.

        Raises:
            ModelError: too few content tokens, or hidden states that are not finite.
        """
        if self.gate is None or self.config.control == "random_gate":
            return GateFit()
        training = self.training
        self.train(False)
        vectors = [self._content_vectors(batch) for batch in batches]
        self.train(training)
        width = self.config.hidden_size
        return calibrate_(self.gate, torch.cat(vectors) if vectors else torch.empty(0, width), seed=seed)

    def _content_vectors(self, batch: Mapping[str, Tensor]) -> Tensor:
        """h^(ℓ_g) of the content tokens of a batch, (M, D)."""
        hidden, content = self._at_gate(batch)
        return hidden[content].float().cpu()

    @torch.no_grad()
    def pooled_features(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What domain head and gate read of a batch of `input_ids` and `attention_mask` (B, T), on the CPU in
        float32; the blocks above are not run.

        Returns:
            h̄^(ℓ_g), (B, D); of how many content tokens, (B,); and `gate_sample` of it.
        """
        hidden, content = self._at_gate(batch)
        pooled, sample = content_mean(hidden, content), self.gate_sample(hidden, content)
        return pooled.float().cpu(), content.sum(-1).cpu(), None if sample is None else sample.cpu()

    def gate_sample(self, hidden: Tensor, content: Tensor) -> Tensor | None:
        """The gate's coordinates u of up to S content tokens of each row, (B, S, g) in float32, NaN where a
        row has fewer; None without a density that is fitted.

        Args:
            hidden: what the gate reads, (B, T, D); `content` the content tokens, (B, T) bool.
        """
        if self.gate is None or self.config.control == "random_gate":
            return None
        drawn, there = spread_over(hidden, content)
        coordinates: Tensor = self.gate.coordinates_of(drawn)
        return coordinates.float().masked_fill(~there[:, :, None], torch.nan)

    def _at_gate(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens = batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)
        hidden, _, _, content = self._run_lower(*tokens)
        return self.family.gate_input(hidden), content
