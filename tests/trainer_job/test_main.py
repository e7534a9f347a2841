"""The command line: every command, and one line with the right exit code for what goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stratified_models.bundle import read_bundle
from tests.trainer_job.conftest import Swept
from tests.trainer_job.tiny import Tiny
from trainer_job import results
from trainer_job.__main__ import main
from trainer_job.provenance import SCHEMA_VERSION

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def copied(swept: Swept, tmp_path: Path) -> tuple[Path, Path]:
    """(configuration, results) of a copy of the finished sweep, to be changed."""
    target = tmp_path / "copy"
    shutil.copytree(swept.yaml.parent, target)
    path = target / "tiny.yaml"
    path.write_text(path.read_text().replace(str(swept.yaml.parent), str(target)))
    return path, target / "results"


VARIANTS = ["--set", "variants=[none, routing, moe]", "--set", "seeds=[0, 1]"]


def test_schema_prints_the_schema(capsys: Captured) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == results.load_schema()


def test_plan_prints_the_plan(swept: Swept, capsys: Captured) -> None:
    assert main(["plan", "--config", str(swept.yaml), *VARIANTS]) == 0
    assert "6, of which 0 to do" in capsys.readouterr().out


def test_report_is_built_again_from_the_units(copied: tuple[Path, Path], capsys: Captured) -> None:
    config, folder = copied
    before = json.loads((folder / "results.json").read_text())
    for name in ("results.json", "report.md", "report.html"):
        (folder / name).unlink()
    assert main(["report", "--config", str(config), *VARIANTS]) == 0
    after = json.loads((folder / "results.json").read_text())
    assert after["units"] == before["units"]
    assert (folder / "report.html").stat().st_size > 50_000
    assert "Served:" in capsys.readouterr().out


def test_promote_copies_the_bundle_and_records_the_reason(
    copied: tuple[Path, Path], capsys: Captured
) -> None:
    config, folder = copied
    record = json.loads((folder / "results.json").read_text())
    other = 1 - record["variants"]["moe"]["best_seed"]
    command = [
        "promote",
        f"moe:{other}",
        "--reason",
        "cheaper to explain",
        "--config",
        str(config),
        *VARIANTS,
    ]
    assert main(command) == 0
    record = json.loads((folder / "results.json").read_text())
    assert record["selected"]["variant"] == "moe"
    assert record["selected"]["seed"] == other
    assert record["selected"]["by"] == "promotion"
    assert "cheaper to explain" in record["verdict"]
    assert read_bundle(folder / "moe").manifest.seed == other
    assert f"serving moe:{other}" in capsys.readouterr().out
    assert main(["report", "--config", str(config), *VARIANTS]) == 0  # the decision stays
    assert json.loads((folder / "results.json").read_text())["selected"]["seed"] == other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "layers", "--reason", "x"], "no such finished unit; finished are ['moe:0'"),
        (["promote", "moe:9", "--reason", "x"], "no such finished unit"),
        (["promote", "moe:x", "--reason", "x"], "not of the form VARIANT"),
        (["promote", "moe:shuffled", "--reason", "x"], "a control"),
        (["promote", "moe", "--reason", " "], "--reason is empty"),
        (["promote", "moe"], "required: --reason"),
    ],
)
def test_a_promotion_that_cannot_be_is_refused(
    swept: Swept, capsys: Captured, arguments: list[str], message: str
) -> None:
    assert main([*arguments, "--config", str(swept.yaml), *VARIANTS]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["report", "promote"])
def test_a_folder_without_a_sweep_is_refused(
    tiny: Tiny, tmp_path: Path, capsys: Captured, command: str
) -> None:
    more = ["moe", "--reason", "x"] if command == "promote" else []
    assert main([command, *more, "--config", str(tiny.yaml(tmp_path))]) == 2
    assert "run `stratified-train run` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "required: --config"),
        (["run", "--config", "nowhere"], "no such file"),
        (["run", "--config", "quickstart", "--set", "training.epoch=1"], "did you mean 'epochs'"),
        (["run", "--config", "quickstart", "--set", "hardware.device=cuda"], "no GPU"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("stratified-train: ")
    assert error.count("\n") == 1


def test_missing_data_are_code_3_before_any_training(tiny: Tiny, tmp_path: Path, capsys: Captured) -> None:
    code = main(["run", "--config", str(tiny.yaml(tmp_path)), "--set", f"data.root={tmp_path / 'absent'}"])
    assert code == 3
    assert "absent" in capsys.readouterr().err


def test_a_tokenizer_that_does_not_fit_is_code_3_before_any_training(
    tiny: Tiny, tmp_path: Path, capsys: Captured
) -> None:
    backbone = tmp_path / "backbone"
    shutil.copytree(tiny.root / "backbone", backbone)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    largest = len(tokenizer)  # the next id: the encoder has no embedding for it
    tokenizer.add_tokens(["stranger"])
    tokenizer.save_pretrained(backbone)
    line = ["run", "--config", str(tiny.yaml(tmp_path)), "--set", f"model.backbone={backbone}"]
    assert main([*line, "--set", "variants=[none]"]) == 3
    error = capsys.readouterr().err
    assert f"has ids up to {largest}, above the encoder's {largest} entries; take the tokenizer that" in error
    units = tmp_path / "results" / "none" / "seed-0"
    assert not [path for path in units.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    assert not list((tmp_path / "logs").rglob("log.jsonl"))


def test_a_place_that_cannot_be_written_is_code_1(tiny: Tiny, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_text("")
    code = main(
        ["run", "--config", str(tiny.yaml(tmp_path)), "--set", f"results={tmp_path / 'file' / 'results'}"]
    )
    assert code == 1
    assert "write access" in capsys.readouterr().err


OTHER = [*VARIANTS, "--set", "training.max_steps=3"]


@pytest.mark.parametrize(
    "arguments", [["report"], ["report", "--recompute"], ["promote", "moe", "--reason", "x"], ["plan"]]
)
def test_a_folder_of_another_configuration_is_refused_and_left_as_it_is(
    copied: tuple[Path, Path], capsys: Captured, arguments: list[str]
) -> None:
    config, folder = copied
    before = (folder / "results.json").read_bytes()
    assert main([*arguments, "--config", str(config), *OTHER]) == 2
    said = capsys.readouterr()
    assert "another configuration (different: training.max_steps)" in said.out + said.err
    assert "complete" not in said.out
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.parametrize("arguments", [["report"], ["promote", "moe", "--reason", "x"], ["plan"]])
def test_a_record_of_a_later_version_is_refused_and_left_as_it_is(
    copied: tuple[Path, Path], capsys: Captured, arguments: list[str]
) -> None:
    config, folder = copied
    text = json.dumps({"schema_version": SCHEMA_VERSION + 1, "news": True})
    (folder / "results.json").write_text(text)
    assert main([*arguments, "--config", str(config), *VARIANTS]) == 2
    said = capsys.readouterr()
    assert "install the newer version" in said.out + said.err
    assert (folder / "results.json").read_text() == text


def test_a_complete_sweep_has_nothing_to_do(copied: tuple[Path, Path], capsys: Captured) -> None:
    config, folder = copied
    state = json.loads((folder / ".state" / "data.json").read_text())
    from trainer_job.folder import source_signature
    from trainer_job.loading import load_config

    state["signature"] = source_signature(load_config(str(config)))
    (folder / ".state" / "data.json").write_text(json.dumps(state))
    assert main(["run", "--config", str(config), *VARIANTS]) == 0
    assert "everything complete: 6 units" in capsys.readouterr().out
