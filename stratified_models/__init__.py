"""Five text classifiers over one stratified geometry of token representations.

Importing registers `StratifiedConfig` and `StratifiedForSequenceClassification` with the Auto classes of
transformers, and text classification with its pipelines, so `from_pretrained(BUNDLE)` and
`pipeline("text-classification", BUNDLE)` work. Without torch, for a service that runs exported models, and
with STRATIFIED_AUTO_CLASSES=0 in the environment, the import does nothing, and `stratified_models.bundle`
still reads bundles.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from stratified_models.errors import (
    BackboneError,
    BundleCorrupt,
    BundleError,
    BundleIncompatible,
    BundleIncomplete,
    BundleMissing,
    ExportError,
    ModelError,
)

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.calibration import GateFit
    from stratified_models.config import VARIANTS, StratifiedConfig
    from stratified_models.cost import flops_per_token
    from stratified_models.loading import LoadReport, load_pretrained
    from stratified_models.outputs import StratifiedOutput
    from stratified_models.sources import resolve_backbone
    from stratified_models.tokenizer import load_tokenizer

__all__ = [
    "VARIANTS",
    "BackboneError",
    "BundleCorrupt",
    "BundleError",
    "BundleIncompatible",
    "BundleIncomplete",
    "BundleMissing",
    "ExportError",
    "GateFit",
    "LoadReport",
    "ModelError",
    "StratifiedConfig",
    "StratifiedForSequenceClassification",
    "StratifiedOutput",
    "flops_per_token",
    "load_pretrained",
    "load_tokenizer",
    "register",
    "resolve_backbone",
]

_HOMES = {
    "VARIANTS": "config",
    "GateFit": "calibration",
    "LoadReport": "loading",
    "StratifiedConfig": "config",
    "StratifiedForSequenceClassification": "base",
    "StratifiedOutput": "outputs",
    "flops_per_token": "cost",
    "load_pretrained": "loading",
    "load_tokenizer": "tokenizer",
    "resolve_backbone": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def register() -> None:
    """Let the Auto classes and the pipelines of transformers know ours; doing so again changes nothing."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.config import StratifiedConfig
    from stratified_models.pipeline import DomainTextClassification

    AutoConfig.register(StratifiedConfig.model_type, StratifiedConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(
        StratifiedConfig, StratifiedForSequenceClassification, exist_ok=True
    )
    PIPELINE_REGISTRY.supported_tasks["text-classification"]["impl"] = DomainTextClassification


# A program that reads bundles without the Auto classes saves the seconds that torch takes to import.
_WANTED = os.environ.get("STRATIFIED_AUTO_CLASSES", "1") != "0"

if _WANTED and all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers")):
    register()
