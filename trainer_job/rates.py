"""Which parameter learns at which rate: groups for AdamW by kind, depth and weight decay.

It does not know the Trainer: it takes the model's own groups and gives the optimizer's.
"""

from __future__ import annotations

from typing import Any

from trainer_job.config import TrainingConfig
from trainer_job.errors import JobError


def parameter_groups(model: Any, training: TrainingConfig, *, decayed: set[str]) -> list[dict[str, Any]]:
    """Groups of one rate and one weight decay each; every trainable parameter stands in exactly one.

    Args:
        model: with `parameter_multiplier_groups()`; its "backbone" group is also split by depth.
        training: rates and multipliers.
        decayed: names of parameters that weight decay applies to; the geometry never decays.

    Raises:
        JobError: the model's groups miss a parameter or name one twice.
    """
    multipliers = {"backbone": 1.0, "new": training.new_multiplier, "geometry": training.geometry_multiplier}
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    depth = depth_factors(model, training.layer_decay)
    found: dict[tuple[float, bool], list[str]] = {}
    seen: list[str] = []
    for group, names in model.parameter_multiplier_groups().items():
        seen += names
        for name in names:
            factor = multipliers[group] * (depth[name] if group == "backbone" else 1.0)
            found.setdefault((factor, name in decayed and group != "geometry"), []).append(name)
    if sorted(seen) != sorted(parameters):
        raise JobError(
            "the model's parameter groups do not hold each trainable parameter exactly once: "
            f"{sorted(set(seen) ^ set(parameters))[:5]}; correct parameter_multiplier_groups()"
        )
    return [
        {
            "params": [parameters[name] for name in names],
            "lr": training.learning_rate * factor,
            "weight_decay": training.weight_decay if decay else 0.0,
        }
        for (factor, decay), names in found.items()
    ]


def depth_factors(model: Any, decay: float) -> dict[str, float]:
    """decay^(L-1-ℓ) for the parameters of block ℓ of L, its experts included; decay^L for the embeddings.

    Layer-wise learning-rate decay (Howard and Ruder 2018, §3.2; Sun et al. 2019, §5.3.4). What stands behind
    the last block learns at the full rate.
    """
    blocks = int(model.config.backbone_config.num_hidden_layers)
    places = {id(value): blocks for value in embedding_parameters(model)}
    for index in range(blocks):
        parts = [
            model.family.block(model.backbone, index),
            dict(model.variant.blocks.items()).get(str(index)),
        ]
        places |= {
            id(value): blocks - 1 - index for part in parts if part is not None for value in part.parameters()
        }
    return {name: decay ** places.get(id(value), 0) for name, value in model.named_parameters()}


def embedding_parameters(model: Any) -> list[Any]:
    """Parameters of everything below the first block."""
    embeddings = getattr(model.backbone, "embeddings", None) or model.get_input_embeddings()
    return list(embeddings.parameters())
