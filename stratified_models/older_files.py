"""Weights that an earlier version wrote, read as what they are now.

It knows no model's class, only how the library names and converts what is stored.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter

__all__ = ["read_older_files"]

ONCE_SCALARS: tuple[str, ...] = ("gate.log_beta",)  # since FSDP shards no scalar, vectors of one


class AsVector(ConversionOps):
    """A stored scalar as a vector of one; whatever has an axis already stays as it is."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **_: Any,
    ) -> dict[str, list[Tensor]]:
        """Tensors by pattern, each in a list or alone, the same with one axis at least."""
        found = {}
        for name, tensors in input_dict.items():
            each = tensors if isinstance(tensors, list) else [tensors]
            found[name] = [tensor.reshape(1) if tensor.dim() == 0 else tensor for tensor in each]
        return found

    @property
    def reverse_op(self) -> AsVector:
        """Saved as it is: no scalar is written any more."""
        return self


def read_older_files(model_type: str) -> None:
    """Let `from_pretrained` of every model of `model_type` read files of earlier versions; doing so again
    changes nothing."""
    converters = [WeightConverter(name, name, operations=[AsVector()]) for name in ONCE_SCALARS]
    register_checkpoint_conversion_mapping(model_type, list(converters), overwrite=True)
