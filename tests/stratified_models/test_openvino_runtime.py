"""What OpenVINO can do on this processor, asked and not assumed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stratified_models import openvino_runtime
from stratified_models.openvino_runtime import adds_int8_exactly, core, runs_bf16

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def flags() -> set[str]:
    """What the kernel says of an x86 processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = next((line for line in lines if line.startswith("flags")), "")
    if not found:
        pytest.skip("the kernel tells no flags of an x86 processor")
    return set(found.split(":", 1)[1].split())


def test_sums_overflow_exactly_where_there_is_no_vnni() -> None:
    known = flags()
    if "avx2" not in known:
        pytest.skip("without AVX2 products of eight bits are added by other means")
    assert adds_int8_exactly() is bool(VNNI & known)


def test_bf16_is_what_the_processor_has() -> None:
    known = flags()
    assert runs_bf16() <= bool({"avx512_bf16", "amx_bf16", "avx512_fp16"} & known)


def test_what_the_library_cannot_try_it_is_not_trusted_with(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def compile_model(self, *_: object) -> None:
            raise RuntimeError("no plugin")

    monkeypatch.setattr(openvino_runtime, "core", Broken)
    assert adds_int8_exactly.__wrapped__() is False


def test_nothing_is_reported_to_the_makers_of_the_library() -> None:
    """Its telemetry forks at import: asked of a process of its own, where nothing was imported before."""
    code = (
        "import sys; from stratified_models.openvino_runtime import core;"
        "forks = []; sys.addaudithook(lambda event, _: forks.append(event) if event == 'os.fork' else None);"
        "core(); assert not forks, forks; assert sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_process_has_one_core() -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(core())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
