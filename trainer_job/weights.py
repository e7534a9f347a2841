"""What is done to a model's weights as a whole: freezing, loading strictly, a digest. It knows no Trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from trainer_job.errors import JobError


def freeze_lower(model: Any, blocks: int) -> None:
    """Keep the embeddings and the first `blocks` blocks at their pretrained weights; 0 trains everything."""
    if blocks == 0:
        return
    if blocks >= model.config.backbone_config.num_hidden_layers:
        raise JobError(
            f"training.frozen_blocks={blocks}: the backbone has "
            f"{model.config.backbone_config.num_hidden_layers} "
            "blocks and one at least must train; set fewer"
        )
    embeddings = getattr(model.backbone, "embeddings", None) or model.get_input_embeddings()
    embeddings.requires_grad_(False)
    for index in range(blocks):
        model.family.block(model.backbone, index).requires_grad_(False)


def strict_load(model: Any, weights: Mapping[str, torch.Tensor], *, origin: str) -> None:
    """Load a full state. Raises JobError when a key is missing or left over (the Trainer itself would not
    tell).
    """
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise JobError(
            f"{origin}: weights do not fit the model (missing {missing[:3]}, unexpected {unexpected[:3]}); "
            "it was "
            "written by another version: remove the unit's folder and run again"
        )


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over every parameter and buffer in order of name: equal exactly when the weights are
    bit-identical.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
