"""MFU: peaks by the device's name, and a share worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.trainer_job.conftest import Swept
from trainer_job.peaks import PEAKS, peak_flops, utilisation
from trainer_job.unit_record import mfu_of


@pytest.mark.parametrize(
    ("device", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H100 80GB HBM3", "tf32", 494),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA A10", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA A10G", "fp16", None),
        ("NVIDIA L40", "fp16", None),
        ("AMD Instinct MI300X", "bf16", None),
    ],
)
def test_peaks_go_by_the_longest_name_that_fits(device: str, precision: str, tera: float | None) -> None:
    assert peak_flops(device, precision) == (None if tera is None else pytest.approx(tera * 1e12))


def test_peaks_are_dense_and_in_order() -> None:
    for peaks in PEAKS.values():
        assert peaks.get("bf16", peaks["fp16"]) == peaks["fp16"]
        assert peaks["fp16"] == pytest.approx(2 * peaks.get("tf32", peaks["fp16"] / 2), rel=0.02)
        assert peaks["fp16"] > peaks["fp32"]


def test_utilisation_by_hand() -> None:
    # 1e6 forward, so 3e6 in training; 1e5 tokens a second need 3e11 of 2 × 1e12
    assert utilisation(1e6, 1e5, peak=1e12, devices=2) == pytest.approx(0.15)
    assert utilisation(1e6, 1e5, peak=None, devices=2) is None
    assert utilisation(1e6, None, peak=1e12, devices=2) is None


def test_a_unit_on_a_known_gpu_has_it_and_one_on_a_cpu_has_not(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-40GB")
    trained = SimpleNamespace(args=SimpleNamespace(bf16=True, fp16=False, tf32=False))
    rates = {"tokens_per_second": 1e6}
    assert mfu_of(trained, "cuda", rates, flops_per_token=1e7) == pytest.approx(3e13 / 312e12)
    assert mfu_of(trained, "cpu", rates, flops_per_token=1e7) is None
    assert [unit["mfu"] for unit in swept.record["units"]] == [None] * 6
