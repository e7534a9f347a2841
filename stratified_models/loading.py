"""From a pretrained encoder on disk or hub to a model of ours.

It does not know data, training, or bundles. Whatever is missing or does not fit stops here: no weight is ever
left random in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.config import StratifiedConfig
from stratified_models.errors import BackboneError
from stratified_models.registry import CONVERSIONS, FAMILIES, family_of
from stratified_models.sources import first_line, quiet, read_config, resolve_backbone
from stratified_models.tokenizer import load_tokenizer

__all__ = ["LoadReport", "load_pretrained"]


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Attributes:
        backbone_sha256: hash over names, types, shapes and bytes of the pristine encoder; equal for all
            variants.
        source: folder or hub id.
        family: adapter that the encoder runs on.
        missing: parameters that the checkpoint does not have; all of them new modules.
        unexpected: entries of the checkpoint that no one uses, such as the heads of its pretraining.
        converted: whether the checkpoint is of another family.
    """

    backbone_sha256: str
    source: str
    family: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    converted: bool


def load_pretrained(
    backbone: str | Path,
    *,
    variant: str,
    labels: Sequence[str],
    domains: Sequence[str],
    domain_labels: Sequence[Sequence[int]],
    max_length: int,
    seed: int,
    revision: str | None = None,
    dropout: float | None = None,
    **options: Any,
) -> tuple[StratifiedForSequenceClassification, LoadReport]:
    """A model in fp32 on the CPU: pretrained encoder, new modules drawn from `seed`.

    New modules of the same name start equal in every variant. `options` are further fields of
    `StratifiedConfig`.

    Raises:
        BackboneError: not found, unsupported family, parameters missing, not finite, or `max_length` above
            its positions.
        ModelError: a value that the configuration refuses.
    """
    source = resolve_backbone(backbone)
    encoder, unexpected, converted = _load_encoder(source, revision)
    family = family_of(encoder.config)
    positions = family.max_positions(encoder.config)
    if not 2 < max_length <= positions:
        raise BackboneError(
            f"max_length {max_length} is outside 3 … {positions}, the positions of {source}; "
            f"set max_length ≤ {positions}"
        )
    # What travels with a bundle is a name, not a folder on this machine.
    encoder.config.name_or_path = Path(backbone).name if Path(backbone).is_dir() else str(backbone)
    if dropout is not None:
        family.set_dropout_(encoder.config, dropout)
    config = StratifiedConfig(
        backbone_config=encoder.config,
        variant=variant,
        id2label=dict(enumerate(labels)),
        domains=list(domains),
        domain_labels=[list(ids) for ids in domain_labels],
        max_length=max_length,
        dropout=dropout,
        pad_token_id=encoder.config.pad_token_id,
        special_token_ids=family.special_token_ids(
            load_tokenizer(backbone, revision=revision, max_length=max_length)
        ),
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StratifiedForSequenceClassification(config)
        _seed_new_modules_(model, seed)
    _adopt_(model, encoder)
    missing = tuple(name for name, _ in model.named_parameters() if not name.startswith("backbone."))
    report = LoadReport(
        backbone_sha256=_digest(encoder.state_dict()),
        source=source,
        family=family.name,
        missing=missing,
        unexpected=unexpected,
        converted=converted,
    )
    return model, report


def _load_encoder(source: str, revision: str | None) -> tuple[PreTrainedModel, tuple[str, ...], bool]:
    """The pristine encoder on its adapter's family, what its checkpoint has beyond it, whether it was
    converted."""
    config = read_config(source, revision)
    family = str(config.model_type)
    if family not in FAMILIES and family not in CONVERSIONS:
        known = ", ".join(sorted({*FAMILIES, *CONVERSIONS}))
        raise BackboneError(
            f"backbone {source!r} is of family {family!r}, which has no adapter; choose one of: {known}"
        )
    extra = {"add_pooling_layer": False} if family in CONVERSIONS else {}
    try:
        with quiet():
            model, info = AutoModel.from_pretrained(
                source,
                config=config,
                revision=revision,
                dtype=torch.float32,
                output_loading_info=True,
                **extra,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"the weights of {source!r} cannot be loaded: {first_line(error)}; check the files"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BackboneError(
            f"the checkpoint {source!r} lacks {len(missing)} parameters of the encoder, {missing[0]} first; "
            "its family or its prefix is another: check config.json"
        )
    converted = family in CONVERSIONS
    if converted:
        target, tensors = CONVERSIONS[family](model)
        model = family_of(target).build(target)
        model.load_state_dict(tensors)
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise BackboneError(
            f"the checkpoint {source!r} holds values that are not finite, in {broken[0]}; fetch it again"
        )
    return model, tuple(sorted(info["unexpected_keys"])), converted


def _adopt_(model: StratifiedForSequenceClassification, encoder: PreTrainedModel) -> None:
    """Copy the pristine encoder in; feed-forward networks that the variant replaces become its experts."""
    own = model.backbone.state_dict()
    model.backbone.load_state_dict(
        {name: tensor for name, tensor in encoder.state_dict().items() if name in own}
    )
    for index in model.variant.replaces_ffn:
        model.variant.adopt_ffn_(index, model.family.ffn_tensors(encoder, index))


def _seed_new_modules_(model: StratifiedForSequenceClassification, seed: int) -> None:
    """Draw each new module from a generator of its own, so that a variant's modules do not shift its
    siblings'."""
    for name, module in model.named_modules():
        if name.startswith("backbone") or not list(module.parameters(recurse=False)):
            continue
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        model._init_weights(module)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
