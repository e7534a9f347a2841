"""The reports: complete, self-contained, escaped, and truthful about what is missing."""

from __future__ import annotations

import copy
import io
import re
from pathlib import Path

import pytest

from tests.trainer_job.conftest import Swept
from trainer_job import plots, tables
from trainer_job.report import build_context, render, write_report


def test_both_reports_name_every_variant_and_the_verdict(swept: Swept) -> None:
    for name in ("report.md", "report.html"):
        text = (swept.layout.results / name).read_text(encoding="utf-8")
        for variant in ("none", "routing", "moe", "TF-IDF + LR", "films", "shop"):
            assert variant in text, (name, variant)
        assert "Served:" in text
        assert swept.record["run"]["id"] in text


def test_the_html_needs_no_other_file(swept: Swept) -> None:
    text = (swept.layout.results / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{1000,}"', text)) == len(plots.PLOTS)
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert all(f'alt="{alt}"' in text for _, alt in plots.PLOTS.values())


def test_the_markdown_shows_the_pngs_beside_it(swept: Swept) -> None:
    text = (swept.layout.results / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((plots/\w+\.png)\)", text)
    assert len(shown) == len(plots.PLOTS)
    for name in shown:
        assert (swept.layout.results / name).read_bytes().startswith(b"\x89PNG")


def test_tables_in_markdown_have_even_rows(swept: Swept) -> None:
    text = (swept.layout.results / "report.md").read_text(encoding="utf-8")
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_foreign_text_is_escaped(swept: Swept) -> None:
    record = copy.deepcopy(swept.record)
    record["verdict"] = "<script>alert(1)</script>"
    context = {**build_context(record), "images": dict.fromkeys(plots.PLOTS, "")}
    assert "<script>" not in render("report.html", context)


def test_unfinished_units_and_kept_leaks_are_told(swept: Swept, tmp_path: Path) -> None:
    record = copy.deepcopy(swept.record)
    record["units"].append(
        {
            "variant": "layers",
            "seed": 9,
            "status": "failed",
            "error": {"kind": "TrainingFailed", "message": "boom"},
        }
    )
    record["data"]["leaks"]["kept"] = True
    for path in write_report(record, tmp_path):
        text = path.read_text(encoding="utf-8")
        assert "layers:9: failed (TrainingFailed: boom)" in text
        assert "on purpose" in text


def test_a_record_without_results_still_reports(swept: Swept, tmp_path: Path) -> None:
    record = {**copy.deepcopy(swept.record), "variants": {}, "comparisons": [], "selected": None, "units": []}
    for path in write_report(record, tmp_path):
        assert "films" in path.read_text(encoding="utf-8")
    assert not (tmp_path / "plots").exists()


def test_without_comparisons_there_is_a_sentence_and_no_empty_table(swept: Swept, tmp_path: Path) -> None:
    for path in write_report({**copy.deepcopy(swept.record), "comparisons": []}, tmp_path):
        text = path.read_text(encoding="utf-8")
        assert "no other variant has finished a seed" in text
        assert "McNemar" not in text
    for path in write_report(copy.deepcopy(swept.record), tmp_path):
        assert "no other variant has finished a seed" not in path.read_text(encoding="utf-8")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_comparison_prints_plain_lines_or_a_rich_table(swept: Swept) -> None:
    plain, rich = io.StringIO(), Terminal()
    tables.print_comparison(swept.record, plain)
    tables.print_comparison(swept.record, rich)
    lines = plain.getvalue().splitlines()
    assert lines[0].startswith("variant")
    assert any(line.startswith("moe") for line in lines)
    assert "Served:" in lines[-1]
    assert "macro-F1" in rich.getvalue()
    assert "Served:" in rich.getvalue()


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"mean": 0.5, "sd": 0.01, "se": 0.2}, "0.500 ± 0.010"),
        ({"mean": 0.5, "sd": None, "se": 0.2}, "0.500 ± 0.200"),
        ({"mean": 0.5, "sd": None}, "0.500"),
        ({"mean": None}, "–"),
    ],
)
def test_figures_carry_the_error_that_they_have(entry: dict[str, float | None], text: str) -> None:
    assert tables.with_error(entry) == text
