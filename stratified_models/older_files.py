"""Weights that an earlier version wrote, read as what they are now.

It knows no model's class, only how the library names and converts what is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter

from stratified_models.by_length import COLUMNS

__all__ = ["read_older_files"]


class Renewed(ConversionOps):
    """A stored tensor that is `old` as `renew` makes it; any other stays as it is."""

    def __init__(self, old: Callable[[Tensor], bool], renew: Callable[[Tensor], Tensor]) -> None:
        self.old, self.renew = old, renew

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **_: Any,
    ) -> dict[str, list[Tensor]]:
        """Tensors by pattern, each in a list or alone, the same as they are now."""
        found = {}
        for name, tensors in input_dict.items():
            each = tensors if isinstance(tensors, list) else [tensors]
            found[name] = [self.renew(tensor) if self.old(tensor) else tensor for tensor in each]
        return found

    @property
    def reverse_op(self) -> Renewed:
        """Saved as it is: nothing is written in the old way any more."""
        return self


RENEWED: dict[str, Renewed] = {
    # FSDP shards no scalar.
    "gate.log_beta": Renewed(lambda beta: beta.dim() == 0, lambda beta: beta.reshape(1)),
    **{  # once variances by feature, now the matrix that whitens rows
        name: Renewed(lambda stored: stored.dim() == 1, lambda variances: variances.rsqrt().diag())
        for name in ("unknown.within", "unknown.overall")
    },
    **{  # once a line by length, now a line and its bend for short texts
        name: Renewed(lambda stored: stored.shape[-1] == 2, lambda line: pad(line, (0, COLUMNS - 2)))
        for name in ("unknown.usual", "unknown.spread")
    },
}


def read_older_files(model_type: str) -> None:
    """Let `from_pretrained` of every model of `model_type` read files of earlier versions; doing so again
    changes nothing."""
    converters = [WeightConverter(name, name, operations=[made]) for name, made in RENEWED.items()]
    register_checkpoint_conversion_mapping(model_type, list(converters), overwrite=True)
