"""What is done to a model's weights as a whole: freezing, loading strictly, priors, a digest.

It knows no Trainer.
"""

from __future__ import annotations

import hashlib
import math
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


@torch.no_grad()
def correct_priors_(
    model: Any,
    counts: Mapping[str, Mapping[str, Mapping[str, int]]],
    *,
    domains: tuple[str, ...],
    labels: tuple[str, ...],
) -> dict[str, dict[str, float]]:
    """Add log(natural share / training share) of each label to its domain's class bias, in place.

    Training draws a domain's labels evenly where the configuration says so; the posterior under other priors
    is the same logit plus the log of their ratio (Saerens et al. 2002, eq. 2.4). The natural shares are those
    of validation; one row is added to every count.

    Args:
        model: with a class bias by domain, (N, C).
        counts: domain → split → label → rows; a label that a domain lacks is not named and stays as it is.
        domains: N names in order of their ids.
        labels: C names in order of their ids.

    Returns:
        What was added, domain → label → nats.
    """
    added: dict[str, dict[str, float]] = {}
    for place, domain in enumerate(domains):
        natural, trained = counts[domain]["validation"], counts[domain]["train"]
        share = (sum(trained.values()) + len(trained)) / (sum(natural.values()) + len(natural))
        added[domain] = {
            label: math.log((natural[label] + 1) / (trained[label] + 1) * share) for label in trained
        }
        for label, value in added[domain].items():
            model.domain_head.class_bias[place, labels.index(label)] += value
    return added


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over every parameter and buffer in order of name: equal exactly when the weights are
    bit-identical.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
