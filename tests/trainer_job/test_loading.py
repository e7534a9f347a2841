"""Configuration: file, then environment, then --set; every refusal is one line with value, rule and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer_job.tiny import Tiny
from trainer_job.errors import ConfigError
from trainer_job.loading import load_config, shipped_names


def test_every_shipped_configuration_is_valid() -> None:
    assert {"quickstart", "reference", "volume"} <= set(shipped_names())
    for name in shipped_names():
        assert load_config(name).data.domains


def test_later_sources_win(tiny: Tiny, tmp_path: Path) -> None:
    environ = {
        "STRATIFIED_TRAIN__TRAINING__EPOCHS": "7",
        "STRATIFIED_TRAIN__MODEL__STRATA": "6",
        "OTHER": "x",
    }
    path = str(tiny.yaml(tmp_path))
    assert load_config(path).training.epochs == 2
    config = load_config(path, environ=environ, settings=["training.epochs=9", "seeds=[4, 5]"])
    assert (config.training.epochs, config.model.strata, config.seeds) == (9, 6, (4, 5))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["training.epoch=3"], ["training.epoch: unknown key", "did you mean 'epochs'"]),
        (["zzz=3"], ["zzz: unknown key; remove it"]),
        (["variants=[none, nine]"], ["nine", "must be distinct and among"]),
        (["seeds=[]"], ["seeds []", "at least one"]),
        (["training.epochs=-1"], ["training.epochs = -1", "greater than 0"]),
        (["training.epochs"], ["'training.epochs'", "section.key=value"]),
        (["=3"], ["section.key=value"]),
        (["training.epochs=[1"], ["no YAML value"]),
        (["seeds.x=3"], ["not a section"]),
        (["data.domains.films.labels=[negative]"], ["films", "at least two classes"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(
    tiny: Tiny, tmp_path: Path, settings: list[str], parts: list[str]
) -> None:
    start = ["seeds=[1]"] if settings[0].startswith("seeds.x") else []
    with pytest.raises(ConfigError) as caught:
        load_config(str(tiny.yaml(tmp_path)), settings=[*start, *settings])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_many_faults_are_counted(tiny: Tiny, tmp_path: Path) -> None:
    wrong = [f"training.x{number}=1" for number in range(5)]
    with pytest.raises(ConfigError, match="and 2 more"):
        load_config(str(tiny.yaml(tmp_path)), settings=wrong)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seeds: [1]\n")
    with pytest.raises(ConfigError, match="data: missing; add it"):
        load_config(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(str(path))


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        load_config("quickstrat")


def test_a_variable_with_an_empty_part_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty part"):
        load_config(str(tiny.yaml(tmp_path)), environ={"STRATIFIED_TRAIN__": "1"})
