"""The plan: units, steps and sizes, from the configuration alone."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer_job.conftest import Swept
from tests.trainer_job.tiny import Tiny
from trainer_job.config.base import VARIANTS
from trainer_job.launch import Devices
from trainer_job.plan import (
    UNMEASURED,
    backbone_size,
    duration,
    faster_settings,
    make_plan,
    multiplies_in_bf16,
    print_plan,
)
from trainer_job.units import Unit

CPU = Devices("cpu", 1)


def shown(tiny: Tiny, place: Path, *settings: str) -> str:
    config = tiny.config(place, *settings)
    stream = io.StringIO()
    print_plan(config, make_plan(config, CPU), stream)
    return stream.getvalue()


def test_steps_follow_from_the_sample(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "data.train_samples=100", "training.epochs=3")
    plan = make_plan(config, CPU)
    assert plan.steps == 18  # 6 whole batches of 16 rows, three times
    assert plan.to_do == len(VARIANTS)
    assert plan.seconds is not None


def test_all_rows_means_unknown_steps(tiny: Tiny, tmp_path: Path) -> None:
    assert make_plan(tiny.config(tmp_path), CPU).steps is None
    text = shown(tiny, tmp_path)
    assert "unknown until the data are read" in text
    assert "all training rows" in text


def test_a_variant_that_no_one_has_timed_is_planned_too(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config(tmp_path, "data.train_samples=100")
    plain, sixth = (make_plan(config, CPU, units=[Unit(name, 0)]).seconds for name in ("none", "sixth"))
    assert plain is not None
    assert sixth == pytest.approx(UNMEASURED * plain)


def test_finished_units_are_shown_as_complete(swept: Swept) -> None:
    plan = make_plan(swept.config, CPU)
    assert plan.to_do == 0
    stream = io.StringIO()
    print_plan(swept.config, plan, stream)
    assert stream.getvalue().count("complete") == 6


def test_the_backbone_is_read_where_it_is_at_hand(tiny: Tiny) -> None:
    assert backbone_size(str(tiny.root / "backbone"))[:2] == (16, 6)
    assert backbone_size("distilbert-base-uncased") == (768, 6, 30522)
    assert backbone_size("package:no_such_package_here")[0] == 768


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "about 1 s"), (300, "about 5 min"), (7200, "about 2.0 h"), (None, "unknown")]
)
def test_durations_are_rough(seconds: float | None, text: str) -> None:
    assert duration(seconds).startswith(text)


def test_planning_opens_neither_torch_nor_datasets(tiny: Tiny, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer_job.__main__ import main; "
        f"code = main(['plan', '--config', {str(tiny.yaml(tmp_path))!r}]); "
        "heavy = {'torch', 'datasets', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "sys.exit(code or (f'{heavy} imported' if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "none:0" in done.stdout


@pytest.mark.parametrize(
    ("flags", "settings", "wanted"),
    [
        ("avx2 avx512_bf16", (), ["hardware.precision=bf16", "model.attention_dropout=0"]),
        ("avx2", (), ["model.attention_dropout=0"]),
        ("amx_bf16", ("hardware.precision=fp32", "model.attention_dropout=0.1"), []),
        ("avx512_bf16", ("model.dropout=0",), ["hardware.precision=bf16"]),
    ],
)
def test_faster_settings_are_those_left_open(
    flags: str, settings: tuple[str, ...], wanted: list[str], tiny: Tiny, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: some processor\nflags\t\t: fpu {flags}\n")
    config = tiny.config(tmp_path, *settings)
    assert faster_settings(config, CPU, cpuinfo=cpuinfo) == wanted
    assert faster_settings(config, Devices("cuda", 1, ("0",)), cpuinfo=cpuinfo) == []


def test_a_processor_that_nothing_tells_of_has_no_bf16(tmp_path: Path) -> None:
    assert not multiplies_in_bf16(tmp_path / "none")
