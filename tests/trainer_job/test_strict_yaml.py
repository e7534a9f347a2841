"""A key that stands twice is refused; everything else is read as the safe loader reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainer_job.errors import ConfigError
from trainer_job.loading import SHIPPED, load_config, read_yaml
from trainer_job.strict_yaml import DuplicateKey, load

MERGED = """
a: {deep: {one: &one {<<: &base {k: 0, kept: 1}, k: 1}}}
two: {<<: *one, k: 2}
"""


@pytest.mark.parametrize("text", ["", "3", "[1, a, null]", "{a: {b: 1}, c: {b: 2}}", MERGED])
def test_what_is_not_doubled_is_read_as_before(text: str) -> None:
    assert load(text) == yaml.safe_load(text)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_double_no_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load(text) == yaml.safe_load(text)


def test_keys_are_compared_as_written() -> None:
    for text in ('1: a\n"1": b', "a:\n  - x: 1\n    x: 2"):
        with pytest.raises(DuplicateKey, match="stands on line"):
            load(text)
    with pytest.raises(DuplicateKey, match="line 1: 'a' stands on line 1 already"):
        load("{a: 1, a: 2}")


def test_the_file_the_line_the_key_and_the_cure_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training:\n  epochs: 3\n  batch_size: 16\n  epochs: 10\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: line 4: 'epochs' stands on line 2 already; keep one"):
        read_yaml(path)


def test_a_setting_on_the_command_line_is_held_to_it_too() -> None:
    with pytest.raises(ConfigError, match=r"--set data\.x=.*'a' stands on line 1 already"):
        load_config("quickstart", settings=["data.x={a: 1, a: 2}"])
