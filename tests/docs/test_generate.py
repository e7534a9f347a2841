"""The generated pages: up to date, complete against the code, and honest about what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import __main__ as program
from docs.generate import (
    codes,
    commands,
    contract,
    drawings,
    fields,
    hooks,
    instruments,
    record,
    tables,
    terminal,
)
from docs.generate.programs import parse, parser_of, programs


def test_what_is_written_passes_the_check_and_what_is_changed_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([], root=tmp_path) == 0
    assert program.main(["--check"], root=tmp_path) == 0
    (tmp_path / "reference" / "yaml.md").write_text("other", encoding="utf-8")
    capsys.readouterr()
    assert program.main(["--check"], root=tmp_path) == 1
    assert "stale: docs/reference/yaml.md" in capsys.readouterr().out
    assert (tmp_path / "reference" / "yaml.md").read_text(encoding="utf-8") == "other"


def test_every_setting_and_flag_is_there() -> None:
    from serving.settings import Settings

    page = fields.write_settings()
    assert all(f"`STRATIFIED_{name.upper()}`" in page for name in Settings.model_fields)
    told = commands.write()
    for part in (
        "`--strict-domain`",
        "### stratified-train promote",
        "## stratified-serve check",
        "`--page-port",
    ):
        assert part in told


def test_every_section_of_the_yaml_has_its_keys() -> None:
    page = fields.write_keys()
    for part in (
        "## data.domains.NAME",
        "kind: files",
        "`learning_rate`",
        "number, > 0",
        "## hardware",
        "`5e-05`",
    ):
        assert part in page


def test_every_metric_exit_code_and_field_is_there() -> None:
    assert "`stratified_batches_total` | counter | `close_reason`" in instruments.write()
    told = codes.write()
    assert "| 42 | `TrainingFailed` |" in told
    assert "`CALLER_QUEUE_FULL` | RESOURCE_EXHAUSTED" in told
    assert "`run.devices.kind` | `cpu`, `cuda`" in record.write()


def test_every_message_of_the_contract_has_its_comments() -> None:
    page = contract.write()
    assert "| `Classify` | [ClassifyRequest](#classifyrequest)" in page
    assert "stream of [ClassifyStreamRequest]" in page
    assert "| `strict_domain` | 6 | optional bool |" in page
    assert "| `DOMAIN_SOURCE_FALLBACK` | 3 |" in page


def test_cells_do_not_break_their_table() -> None:
    assert tables.table(("a",), [("x | y\nz",)]).splitlines()[2] == "| x \\| y z |"


def test_a_parser_is_caught_before_anything_happens() -> None:
    train = programs()["stratified-train"]
    assert parse(train, ["plan", "--config", "nowhere.yaml"]).config == "nowhere.yaml"
    assert parser_of(train).prog == "stratified-train"
    with pytest.raises(SystemExit):
        parse(train, ["plan"])


def test_batches_of_the_drawing_follow_the_rule() -> None:
    made = drawings.batches([(0, 40), (1, 40), (2, 10), (500, 40)])
    assert [members for _, _, members in made] == [[0], [1], [2], [3]] or made[1][2] == [1]
    starts = [begun for begun, _, _ in made]
    assert starts == sorted(starts)
    assert starts[-1] == 500  # an idle engine takes it at once
    assert drawings.batches([(0, 40), (1, 40), (2, 40)])[1][2] == [1, 2]


def test_pages_that_nobody_named_are_added_and_decisions_listed(tmp_path: Path) -> None:
    (tmp_path / "decisions").mkdir()
    for name in ("index.md", "new.md", "decisions/0001-a.md"):
        (tmp_path / name).write_text("# x", encoding="utf-8")
    nav = [{"Home": "index.md"}, {"Run it": [{"Decisions": []}]}]
    config = hooks.on_config({"docs_dir": str(tmp_path), "nav": nav})
    assert config["nav"][1]["Run it"] == [{"Decisions": ["decisions/0001-a.md"]}, "new.md"]


def test_a_command_is_drawn_with_its_output(tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    assert terminal.main([str(out), "--", "echo", "<told>"]) == 0
    assert "&lt;told&gt;" in out.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        terminal.main(["x.svg"])
