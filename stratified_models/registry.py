"""Names to classes: the variants, the families of encoders, and the conversions between families.

A new variant or family is a file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from stratified_models.backbone import Family
from stratified_models.backbones.distilbert import DistilBert, bert_to_distilbert
from stratified_models.config import StratifiedConfig
from stratified_models.errors import BackboneError
from stratified_models.hooks import Variant
from stratified_models.variants.attention import StratifiedAttention
from stratified_models.variants.layers import StratifiedLayers
from stratified_models.variants.moe import StratifiedExperts
from stratified_models.variants.none import Plain
from stratified_models.variants.routing import StratifiedRouting

__all__ = ["CONVERSIONS", "FAMILIES", "VARIANT_CLASSES", "family_of"]

VARIANT_CLASSES: Mapping[str, Callable[[StratifiedConfig, Family], Variant]] = {
    "none": Plain,
    "attention": StratifiedAttention,
    "routing": StratifiedRouting,
    "layers": StratifiedLayers,
    "moe": StratifiedExperts,
}

FAMILIES: Mapping[str, Family] = {family.name: family for family in (DistilBert(),)}

# Checkpoints of another family that are the same function in a registered one.
CONVERSIONS: Mapping[str, Callable[[PreTrainedModel], tuple[PreTrainedConfig, dict[str, Tensor]]]] = {
    "bert": bert_to_distilbert,
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
