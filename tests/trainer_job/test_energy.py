"""Joules by the driver's counter, and no figure where there is none."""

from __future__ import annotations

import pytest

from trainer_job.energy import EnergyMeter


class Driver:
    """Stands in for NVML: 5 J pass between two readings."""

    def __init__(self, *, broken: bool = False) -> None:
        self.millijoules, self.broken = 1_000_000, broken
        self.asked: list[object] = []

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own name
        pass

    def nvmlDeviceGetHandleByIndex(self, place: int) -> str:  # noqa: N802 - likewise
        self.asked.append(place)
        return f"gpu {place}"

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802 - likewise
        self.asked.append(name)
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802 - likewise
        if self.broken:
            raise OSError("not supported")
        self.millijoules += 5000
        return self.millijoules


def test_energy_is_the_counters_difference_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    driver = Driver()
    assert EnergyMeter("cuda", library=driver).joules() == 5.0
    assert driver.asked == [5]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    EnergyMeter("cuda", library=driver)
    assert driver.asked[-1] == "GPU-abc"


def test_there_is_no_figure_without_a_counter() -> None:
    assert EnergyMeter("cpu").joules() is None
    assert EnergyMeter("cuda", library=Driver(broken=True)).joules() is None
    assert EnergyMeter("cuda", library=object()).joules() is None
