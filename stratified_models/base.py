"""The classifier: encode → pool → logits → loss, the same for every variant.

It builds the parts and joins what `encoder` finds to labels. It does not know how the blocks are walked,
which family the encoder is of (see `backbone`), nor who trains it.

What is unusual here: auxiliary losses divide by counts that `average_over_ranks` makes global, so that data
parallelism's mean of gradients is the gradient of the global batch.

B rows, T tokens, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from stratified_models.config import StratifiedConfig
from stratified_models.domains import DomainHead
from stratified_models.encoder import StratifiedEncoder
from stratified_models.gate import GEOMETRY
from stratified_models.hooks import BlockHooks
from stratified_models.keywords import refuse_unknown
from stratified_models.objective import describe, objective
from stratified_models.older_files import read_older_files
from stratified_models.outputs import StratifiedOutput
from stratified_models.registry import family_of, gate_of, probes_of, scores_of, variant_of, words_of

__all__ = ["StratifiedForSequenceClassification"]

FP32 = ("gate", "domain_head", "domain_words", "domain_probes")  # whatever the encoder's precision

read_older_files(StratifiedConfig.model_type)


class StratifiedForSequenceClassification(StratifiedEncoder):
    """Domain-aware text classifier over a pretrained encoder, in one of five variants.

    Attributes:
        average_over_ranks: under data parallelism, a function that takes a small detached vector to its
            mean over ranks; None on one process. Called once per training forward with labels.
    """

    config: StratifiedConfig
    config_class = StratifiedConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # Trainer must not rescale: the loss is a mean already
    _supports_sdpa = True
    _keep_in_fp32_modules_strict: set[str] | list[str] | None = set(FP32)  # noqa: RUF012  as its base declares it
    average_over_ranks: Callable[[Tensor], Tensor] | None = None

    def __init__(self, config: StratifiedConfig) -> None:
        super().__init__(config)
        self.family = family_of(config.backbone_config)
        self.backbone = self.family.build(config.backbone_config)
        self.pooler = self.family.pooler(config.backbone_config, self.family.pooling(config.pooling))
        self.classifier = nn.Linear(config.hidden_size, len(config.labels))
        self.domain_head = DomainHead(
            width=config.hidden_size,
            domains=len(config.domains),
            classes=len(config.labels),
            allowed=config.domain_labels or [],
            bias=config.domain_bias,
            dropout=config.domain_dropout,
            gain=config.domain_gain,
        )
        self.domain_words, self.domain_probes = words_of(config), probes_of(config)
        self.variant = variant_of(config, self.family)
        self.gate = gate_of(config) if config.has_gate else None
        if self.gate is not None and config.control == "random_gate":
            self.gate.freeze_()
        self.unknown = scores_of(config)
        for index in self.variant.replaces_ffn:
            self.family.remove_ffn_(self.backbone, index)
        self.plain = BlockHooks()
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]  # untyped in transformers

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialise = getattr(module, "initialise_", None)
        if initialise is not None:
            initialise()
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]  # untyped in transformers

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        domain_id: Tensor | None = None,
        row_id: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **unread: Any,
    ) -> StratifiedOutput:
        """Classify a batch.

        Args:
            input_ids: token ids, (B, T).
            attention_mask: 1 for tokens, 0 for padding, (B, T); None is all tokens.
            labels: class ids, (B,), −100 where there is none; None computes no loss.
            domain_id: domain ids, (B,), −1 where unknown; None is all unknown.
            row_id: travels with the batch and is not used.
            inputs_embeds: word embeddings (B, T, D) in place of looking `input_ids` up.
            unread: what callers of the library send to every model (`keywords.UNREAD`).

        Raises:
            TypeError: another keyword, such as a misspelt one.
        """
        refuse_unknown(unread)
        every_token = labels is not None and self.variant.needs_every_token
        encoded = self.encode(
            input_ids, attention_mask, domain_id, inputs_embeds=inputs_embeds, every_token=every_token
        )
        logits = self.classifier(self.pooler(encoded.hidden, encoded.content))
        logits = self.domain_head.add_bias(logits, encoded.domain.weights)
        if self.config.mask_absent_labels:
            logits = self.domain_head.rule_out_absent(logits, encoded.domain, domain_id)
        parts: dict[str, Tensor] = {}
        if labels is not None:
            average = self.average_over_ranks if self.training else None
            parts = objective(
                encoded, logits, self.config, labels=labels, domain_id=domain_id, average=average
            )
        if self.training and encoded.traces:
            self.variant.observe_(encoded.traces)
        return StratifiedOutput(logits=logits, **parts, **describe(encoded, self.config))

    def prepare_for_inference(self) -> Self:
        """Evaluation mode, with the gate's density folded; call after every load."""
        self.train(False)
        if self.gate is not None:
            self.gate.fold_()
        return self

    def parameter_multiplier_groups(self) -> dict[str, list[str]]:
        """Names of trainable parameters by learning rate: "backbone", "new", and "geometry" (no weight
        decay)."""
        groups: dict[str, list[str]] = {"backbone": [], "new": [], "geometry": []}
        pretrained = {f"variant.{name}" for name in self.variant.backbone_parameters()}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith("backbone.") or name in pretrained:
                groups["backbone"].append(name)
            elif name in {f"gate.{part}" for part in GEOMETRY}:
                groups["geometry"].append(name)
            else:
                groups["new"].append(name)
        return groups

    def balance_experts_(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """After an optimizer step: move the experts' selection bias; `reduce` sums loads over ranks."""
        self.variant.balance_(reduce)

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word embeddings."""
        return self.backbone.get_input_embeddings()
