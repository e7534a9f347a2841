"""Names to classes: the variants, the families of encoders, and the conversions between families.

A new variant or family is a file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from stratified_models.backbone import Family
from stratified_models.backbones.bert import Bert
from stratified_models.backbones.distilbert import DistilBert, bert_to_distilbert
from stratified_models.backbones.gpt2 import Gpt2
from stratified_models.backbones.roberta import Roberta
from stratified_models.config import StratifiedConfig
from stratified_models.domain_probes import DomainProbes, check_blocks
from stratified_models.domain_words import DomainWords
from stratified_models.errors import BackboneError
from stratified_models.gate import StratumGate
from stratified_models.hooks import Variant
from stratified_models.unknown import FeatureScores
from stratified_models.variants.attention import StratifiedAttention
from stratified_models.variants.layers import StratifiedLayers
from stratified_models.variants.matched import Matched
from stratified_models.variants.moe import StratifiedExperts
from stratified_models.variants.none import Plain
from stratified_models.variants.routing import StratifiedRouting

__all__ = [
    "CONVERSIONS",
    "FAMILIES",
    "VARIANT_CLASSES",
    "Conversion",
    "added_parameters",
    "family_of",
    "gate_of",
    "scores_of",
    "variant_of",
]

VARIANT_CLASSES: Mapping[str, Callable[[StratifiedConfig, Family], Variant]] = {
    "none": Plain,
    "attention": StratifiedAttention,
    "routing": StratifiedRouting,
    "layers": StratifiedLayers,
    "moe": StratifiedExperts,
}

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        DistilBert(),
        Bert(),
        Roberta(),
        Gpt2(),
    )
}

Conversion = Callable[[PreTrainedModel], tuple[PreTrainedConfig, dict[str, Tensor]]]

# (family of the checkpoint, family wanted): where the first is the same function in the second.
CONVERSIONS: Mapping[tuple[str, str], Conversion] = {
    ("bert", "distilbert"): bert_to_distilbert,
}


def family_of(config: PreTrainedConfig) -> Family:
    """The adapter of an encoder's configuration.

    Raises:
        BackboneError: there is none.
    """
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BackboneError(
            f"backbone family {config.model_type!r} has no adapter; choose a backbone of: {known}"
        )
    return FAMILIES[config.model_type]


def variant_of(config: StratifiedConfig, family: Family) -> Variant:
    """The use of strata that a configuration names; for the control `matched` an adapter without any."""
    if config.control == "matched":
        return Matched(config, family, parameters=added_parameters(config, family, config.matched_variant))
    return VARIANT_CLASSES[config.variant](config, family)


def gate_of(config: StratifiedConfig) -> StratumGate:
    """A gate of the configured size."""
    return StratumGate(
        width=config.hidden_size,
        coordinates=config.gate_dim,
        ranks=config.ranks,
        domains=len(config.domains),
    )


def scores_of(config: StratifiedConfig) -> FeatureScores | None:
    """Room for the fitted out-of-domain scores; None until there are any."""
    if not config.unknown_rows:
        return None
    return FeatureScores(width=config.hidden_size, domains=len(config.domains), rows=config.unknown_rows)


def probes_of(config: StratifiedConfig) -> DomainProbes | None:
    """Room for fitted probes of later blocks; None until there are any."""
    if not config.domain_blocks:
        return None
    check_blocks(config, config.domain_blocks)
    domains = len(config.domains)
    return DomainProbes(width=config.hidden_size, domains=domains, blocks=config.domain_blocks)


def words_of(config: StratifiedConfig) -> DomainWords | None:
    """Room for the fitted table of words; None until there is one."""
    if not config.domain_words:
        return None
    vocabulary, pairs = config.backbone_config.vocab_size, config.domain_pairs
    return DomainWords(vocabulary=vocabulary, domains=len(config.domains), pairs=pairs)


def added_parameters(config: StratifiedConfig, family: Family, variant: str) -> int:
    """Parameters that `variant` adds to `none` here: its own, its gate's, less those it replaces."""
    with torch.device("meta"):
        made = VARIANT_CLASSES[variant](config, family)
        modules = [made, gate_of(config)] if made.uses_strata else [made]
    width, inner = config.hidden_size, family.ffn_width(config.backbone_config)
    replaced = len(made.replaces_ffn) * (2 * width * inner + inner + width)
    return sum(p.numel() for module in modules for p in module.parameters()) - replaced
