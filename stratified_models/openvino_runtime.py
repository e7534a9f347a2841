"""OpenVINO in this process: its one core, and what it can do on this processor.

It knows openvino, and no file, no bundle and no model. Whoever imports openvino imports this module first: it
keeps the library from reporting its use.
"""

from __future__ import annotations

import sys
import threading
from functools import cache
from typing import Any

import numpy as np

__all__ = ["DEVICE", "adds_int8_exactly", "core", "runs_bf16"]

# Its package of telemetry forks a process to report every import to its makers: a service with threads may
# not fork, and one that holds people's texts may not report. Where it cannot be imported, openvino and NNCF
# go without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: cannot be imported

DEVICE = "CPU"
WIDTH = 64  # columns of the product that is tried: one register's at least
_one_at_a_time = threading.Lock()


def core() -> Any:
    """The library's one core of this process, which is never let go.

    Each core gives the thread that makes it a stack for signals, and takes that stack's memory with it. After
    the second one is gone, the next signal that a handler waits for, a SIGTERM or a Ctrl-C, ends the process
    with a segmentation fault (openvino 2026.4).
    """
    with _one_at_a_time:  # a cache alone lets two threads make one each
        return _made()


@cache
def _made() -> Any:
    import openvino

    return openvino.Core()


def runs_bf16() -> bool:
    """Whether this processor multiplies in bfloat16; elsewhere the hint would be without effect."""
    return "BF16" in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


@cache
def adds_int8_exactly() -> bool:
    """Whether sums of products of eight bits come out right here; asked of one product, the largest possible.

    Processors without VNNI add each pair of them in 16 bits, and stop at the largest number of 16 bits. The
    library computes so all the same: a file in int8 gives other answers there, and later than fp32 does.
    """
    try:
        return _largest_product_is_exact()
    except (ImportError, OSError, RuntimeError):  # what cannot be tried is not relied on
        return False


def _largest_product_is_exact() -> bool:
    from openvino import Model, opset13

    rows = opset13.parameter([WIDTH, WIDTH], np.float32)
    least, most = np.float32(0), np.float32(255)
    activations = opset13.fake_quantize(rows, least, most, least, most, 256)
    whole = opset13.constant(np.full((WIDTH, WIDTH), 127, np.int8))
    steps = opset13.constant(np.ones((1, WIDTH), np.float32))
    weights = opset13.multiply(opset13.convert(whole, np.float32), steps)
    product = Model([opset13.matmul(activations, weights, False, False)], [rows])
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    graph = core().compile_model(product, DEVICE, exact)
    found = graph(np.full((WIDTH, WIDTH), 255, np.float32))[0]
    return bool((found == WIDTH * 255 * 127).all())
