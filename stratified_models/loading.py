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
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.config import StratifiedConfig
from stratified_models.errors import BackboneError
from stratified_models.registry import CONVERSIONS, FAMILIES, Conversion, family_of
from stratified_models.sources import first_line, quiet, read_config, resolve_backbone
from stratified_models.tokenizer import load_tokenizer

__all__ = ["LoadReport", "load_pretrained"]

DOMAIN_GAIN = 10.0  # of new models; a bundle written without one has 1


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
    family: str | None = None,
    dropout: float | None = None,
    attention_dropout: float | None = None,
    **options: Any,
) -> tuple[StratifiedForSequenceClassification, LoadReport]:
    """A model in fp32 on the CPU: pretrained encoder, new modules drawn from `seed`.

    New modules of the same name start equal in every variant. `family` is the adapter to run on; None is the
    checkpoint's own, "distilbert" takes a BERT checkpoint too and converts it. `attention_dropout` is that of
    attention weights, None what `dropout` or the checkpoint says. `options` are further fields
    of `StratifiedConfig`.

    Raises:
        BackboneError: not found, unsupported family, parameters missing, not finite, or `max_length` above
            its positions.
        ModelError: a value that the configuration refuses.
    """
    source = resolve_backbone(backbone)
    encoder, unexpected, converted = _load_encoder(source, revision, family)
    adapter = family_of(encoder.config)
    positions = adapter.max_positions(encoder.config)
    if not 2 < max_length <= positions:
        raise BackboneError(
            f"max_length {max_length} is outside 3 … {positions}, the positions of {source}; "
            f"set max_length ≤ {positions}"
        )
    # What travels with a bundle is a name, not a folder on this machine.
    encoder.config.name_or_path = Path(backbone).name if Path(backbone).is_dir() else str(backbone)
    if dropout is not None:
        adapter.set_dropout_(encoder.config, dropout)
    if attention_dropout is not None:
        adapter.set_attention_dropout_(encoder.config, attention_dropout)
    tokenizer = load_tokenizer(backbone, revision=revision, max_length=max_length)
    config = StratifiedConfig(
        backbone_config=encoder.config,
        variant=variant,
        id2label=dict(enumerate(labels)),
        domains=list(domains),
        domain_labels=[list(ids) for ids in domain_labels],
        max_length=max_length,
        dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        special_token_ids=adapter.special_token_ids(tokenizer),
        **{"domain_gain": DOMAIN_GAIN, **options},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = StratifiedForSequenceClassification(config)
        _seed_new_modules_(model, seed)
    adopted = _adopt_(model, encoder)
    new = (name for name, _ in model.named_parameters() if not name.startswith("backbone."))
    missing = tuple(name for name in new if name not in adopted)
    report = LoadReport(
        backbone_sha256=_digest(encoder.state_dict()),
        source=source,
        family=adapter.name,
        missing=missing,
        unexpected=unexpected,
        converted=converted,
    )
    return model, report


def _load_encoder(
    source: str, revision: str | None, wanted: str | None
) -> tuple[PreTrainedModel, tuple[str, ...], bool]:
    """The pristine encoder on its adapter's family, what its checkpoint has beyond it, whether it was
    converted."""
    config = read_config(source, revision)
    conversion = _conversion(source, str(config.model_type), wanted)
    model, unexpected = _read_encoder(source, revision, config, converting=conversion is not None)
    if conversion is not None:
        target, tensors = conversion(model)
        model = family_of(target).build(target)
        model.load_state_dict(tensors)
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise BackboneError(
            f"the checkpoint {source!r} holds values that are not finite, in {broken[0]}; fetch it again"
        )
    return model, unexpected, conversion is not None


def _conversion(source: str, found: str, wanted: str | None) -> Conversion | None:
    """How a checkpoint of family `found` comes to run on the adapter `wanted`; None where it is its own.

    Raises:
        BackboneError: there is no such adapter, or no way to it.
    """
    if wanted not in (None, found) and (found, wanted) in CONVERSIONS:
        return CONVERSIONS[found, str(wanted)]
    if found not in FAMILIES:
        raise BackboneError(
            f"backbone {source!r} is of family {found!r}, which has no adapter; choose one of: "
            f"{', '.join(sorted(FAMILIES))}"
        )
    if wanted not in (None, found):
        ways = sorted({found, *(target for start, target in CONVERSIONS if start == found)})
        raise BackboneError(
            f"family {wanted!r} does not fit {source!r}, whose checkpoint is of family {found!r}; leave "
            f"family out, or set one of: {', '.join(ways)}"
        )
    return None


def _read_encoder(
    source: str, revision: str | None, config: PreTrainedConfig, *, converting: bool
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The checkpoint's own encoder in fp32, and the entries that it does not use."""
    adapter = family_of(config)
    adapter.check(config)
    options = {"add_pooling_layer": False} if converting else adapter.load_options
    try:
        with quiet():
            model, info = AutoModel.from_pretrained(
                source,
                config=config,
                revision=revision,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise BackboneError(
            f"the weights of {source!r} cannot be loaded: {first_line(error)}; check the files"
        ) from error
    absent = sorted(info["missing_keys"])
    missing = [name for name in absent if not name.startswith(adapter.optional)]
    if missing:
        raise BackboneError(
            f"the checkpoint {source!r} lacks {len(missing)} of the encoder's parameters, {missing[0]} "
            "first; its family or its prefix is another: check config.json"
        )
    for part in {name.split(".")[0] for name in absent}:  # what is optional and not there is not left random
        setattr(model, part, None)
    return model, tuple(sorted(info["unexpected_keys"]))


def _adopt_(model: StratifiedForSequenceClassification, encoder: PreTrainedModel) -> set[str]:
    """Copy the pristine encoder in; feed-forward networks that the variant replaces become its experts.

    Returns the names of parameters outside the encoder that are pretrained too.
    """
    own = model.backbone.state_dict()
    model.backbone.load_state_dict(
        {name: tensor for name, tensor in encoder.state_dict().items() if name in own}
    )
    for index in model.variant.replaces_ffn:
        model.variant.adopt_ffn_(index, model.family.ffn_tensors(encoder, index))
    return {f"pooler.{name}" for name in model.family.adopt_pooler_(model.pooler, encoder)}


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
