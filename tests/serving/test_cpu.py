"""Cores as the container grants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.cpu import available_cores, quota


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


def test_version_two(tmp_path: Path) -> None:
    assert quota(write(tmp_path, cpu_max="150000 100000\n")) == 1.5


def test_version_two_without_a_limit(tmp_path: Path) -> None:
    assert quota(write(tmp_path, cpu_max="max 100000\n")) is None


def test_version_one(tmp_path: Path) -> None:
    assert quota(write(tmp_path, cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")) == 0.5


def test_version_one_without_a_limit(tmp_path: Path) -> None:
    assert quota(write(tmp_path, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")) is None


def test_no_control_group(tmp_path: Path) -> None:
    assert quota(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("10000 100000", 1), ("100000 100000", 1), ("60000000 100000", None)]
)
def test_at_least_one_core_and_never_more_than_the_mask(
    tmp_path: Path, text: str, expected: int | None
) -> None:
    cores = available_cores(write(tmp_path, cpu_max=text))
    assert cores == (expected or available_cores(tmp_path / "none"))
