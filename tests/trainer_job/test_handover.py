"""Exports after a sweep: what is missing, in which order, and what happens when it cannot be done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer_job import handover, lock
from trainer_job.errors import JobError, Preempted
from trainer_job.files import write_json
from trainer_job.process import StopRequest
from trainer_job.units import Layout

ONNX = {"model.onnx": {"format": "onnx", "precision": "fp32"}}
INT8 = {"model.int8.onnx": {"format": "onnx", "precision": "int8"}}
RECORD = {
    "variants": {name: {} for name in ("attention", "moe", "moe:shuffled", "none", "routing")},
    "selected": {"variant": "none", "seed": 0},
}
MARK = (
    "import sys, pathlib; pathlib.Path(sys.argv[1], 'exported').touch(); raise SystemExit(int(sys.argv[2]))"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(results=tmp_path / "results", logs=tmp_path / "logs")
    for name, exports in (("attention", {}), ("moe", INT8), ("none", {}), ("routing", ONNX)):
        write_json(layout.variant(name) / "manifest.json", {"exports": exports})
    return layout


def ending(code: int) -> Callable[[Path], list[str]]:
    return lambda bundle: [sys.executable, "-c", MARK, str(bundle), str(code)]


def export(layout: Layout, record: dict[str, Any], stop: StopRequest, code: int = 0) -> list[str]:
    done = handover.export_missing(
        layout, record, environ={}, stop=stop, grace_seconds=5, command=ending(code)
    )
    return [bundle.name for bundle in done]


def test_the_selected_variant_comes_first_and_controls_do_not_come(layout: Layout) -> None:
    missing = [bundle.name for bundle in handover.without_export(layout, RECORD)]
    assert missing == ["none", "attention", "moe"]


def test_every_missing_bundle_is_exported_by_a_process_of_its_own(layout: Layout) -> None:
    assert export(layout, RECORD, StopRequest()) == ["none", "attention", "moe"]
    marked = {path.parent.name for path in layout.results.glob("*/exported")}
    assert marked == {"none", "attention", "moe"}


def test_nothing_missing_starts_nothing(layout: Layout) -> None:
    assert export(layout, {"variants": {"routing": {}}}, StopRequest()) == []


def test_a_shard_exports_only_what_completes_the_sweep(layout: Layout) -> None:
    def among(status: str) -> list[str]:
        done = handover.export_missing(
            layout,
            {**RECORD, "status": status},
            environ={},
            stop=StopRequest(),
            grace_seconds=5,
            shared=True,
            command=ending(0),
        )
        return [bundle.name for bundle in done]

    assert among("running") == []
    with lock.hold(layout.results, shared=True):  # another shard is still there
        assert among("complete") == ["none", "attention", "moe"]


def test_a_failed_export_says_which_and_what_to_try(layout: Layout) -> None:
    with pytest.raises(
        JobError, match=r"none: its export to ONNX ended with exit code 9.*stratified-train export"
    ):
        export(layout, RECORD, StopRequest(), code=9)


def test_a_stop_is_a_preemption_and_starts_no_further_export(layout: Layout) -> None:
    stop = StopRequest()
    stop.note(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"SIGTERM while exporting none.*run the same command"):
        export(layout, RECORD, stop)
    assert not list(layout.results.glob("*/exported"))


def test_the_command_is_the_programs_own() -> None:
    from trainer_job.cli import build_parser

    command = handover.export_command(Path("a/bundle"))
    assert command[:3] == [sys.executable, "-m", "trainer_job"]
    assert build_parser().parse_args(command[3:]).directory == Path("a/bundle")
