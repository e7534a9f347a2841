"""What GPUs could compute at most, and which share of it training did: model FLOPs utilisation (MFU).

Peaks are the makers' figures for dense matrix products (without sparsity), in TFLOP/s. It does not know how
operations are counted; `stratified_models.cost` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# By the beginning of the name that CUDA gives; of several that fit, the longest. Left out: what a GPU lacks.
PEAKS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "NVIDIA H100": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "NVIDIA H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    "NVIDIA H100 NVL": {"bf16": 835, "fp16": 835, "tf32": 417, "fp32": 60},
    "NVIDIA A100": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "NVIDIA A10": {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
    "NVIDIA L4": {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
    "NVIDIA L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
    "Tesla V100-SXM2": {"fp16": 125, "fp32": 15.7},
    "Tesla V100-PCIE": {"fp16": 112, "fp32": 14},
    "Tesla T4": {"fp16": 65, "fp32": 8.1},
}
PASSES = 3  # one forward, and twice as much backward


def peak_flops(device: str, precision: str) -> float | None:
    """FLOP/s of a GPU of that name in `bf16`, `fp16`, `tf32` or `fp32`; None where it is not known.

    A name fits whole words: an A10G is no A10.
    """
    fitting = [name for name in PEAKS if re.match(rf"{re.escape(name)}(?![A-Za-z0-9])", device)]
    peak = PEAKS[max(fitting, key=len)].get(precision) if fitting else None
    return None if peak is None else peak * 1e12


def utilisation(
    flops_per_token: float, tokens_per_second: float | None, *, peak: float | None, devices: int
) -> float | None:
    """MFU: operations that the model needs, forward and backward, per second of training, over what `devices`
    of that peak could do. None without a peak or a rate.

    Args:
        flops_per_token: of a forward pass.
        tokens_per_second: real tokens, over all devices; padding is no use.
        peak: FLOP/s of one device.
        devices: GPUs that trained together.
    """
    if peak is None or tokens_per_second is None:
        return None
    return PASSES * flops_per_token * tokens_per_second / (peak * devices)
