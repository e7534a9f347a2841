"""The table of the models: what misses its target, and where it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import models
from benchmarks.models import misses, write_docs


def row(variant: str = "routing", **figures: Any) -> dict[str, Any]:
    """What is exactly on every target."""
    most = 1.45 if variant == "moe" else 1.35
    kept = {"parameters_added": 0.08, "parameters_base_added": 0.08, "forward_ratio": most}
    return {"family": "bert", "variant": variant, **kept, **figures}


@pytest.mark.parametrize("variant", ["none", "routing", "moe", "sixth"])
def test_what_is_on_its_target_is_no_miss(variant: str) -> None:
    assert misses([row(variant)]) == []


@pytest.mark.parametrize(
    ("variant", "figures", "said"),
    [
        ("routing", {"parameters_added": 0.0812}, "bert routing: 8.1 % more parameters, above 8 %"),
        ("layers", {"parameters_base_added": 0.5}, "bert layers: 50.0 % more parameters, above 8 %"),
        ("routing", {"forward_ratio": 1.36}, "bert routing: forward 1.36 ×, above 1.35"),
        ("moe", {"forward_ratio": 1.46}, "bert moe: forward 1.46 ×, above 1.45"),
    ],
)
def test_what_is_above_its_target_is_said(variant: str, figures: dict[str, float], said: str) -> None:
    assert misses([row("none"), row(variant, **figures)]) == [said]


def test_experts_may_add_parameters() -> None:
    assert misses([row("moe", parameters_added=0.42, parameters_base_added=0.42)]) == []


@pytest.mark.parametrize(("ratio", "code"), [(1.2, 0), (1.5, 1)])
def test_the_command_ends_with_1_when_a_target_is_missed(
    ratio: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = row(forward_ratio=ratio, backward_ratio=1.0, parameters=9, flops=1e6, flops_added=0.1)
    measured |= {"identity_error": 0.0, "onnx_error": None}
    monkeypatch.setattr(models, "measure_family", lambda family, options: [measured])
    assert models.main(["--families", "bert", "--docs", "", "--out", str(tmp_path)]) == code
    assert ("missed: bert routing: forward 1.50 ×" in capsys.readouterr().err) == bool(code)


def test_the_table_lands_between_its_markers_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- models-table -->\nold\n<!-- end of models-table -->\nafter\n", "utf-8")
    write_docs(path, "| new |")
    assert path.read_text("utf-8") == (
        "before\n<!-- models-table -->\n| new |\n<!-- end of models-table -->\nafter\n"
    )
    path.write_text("no markers", "utf-8")
    with pytest.raises(SystemExit, match="put both lines where the table belongs"):
        write_docs(path, "| new |")
