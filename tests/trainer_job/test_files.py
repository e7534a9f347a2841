"""Files are replaced whole or not at all, and JSON holds no NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from trainer_job.files import plain, read_json, remove_tree, write_json, write_text


def test_text_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")  # not encodable
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_plain_turns_nan_and_numpy_into_json_values(tmp_path: Path) -> None:
    value = {
        "nan": math.nan,
        "inf": np.float64("inf"),
        "array": np.arange(3),
        "number": np.int64(4),
        "float": np.float32(0.5),
        "yes": True,
        "path": tmp_path,
        "tuple": (1, None, "x"),
        3: "key",
    }
    assert plain(value) == {
        "nan": None,
        "inf": None,
        "array": [0, 1, 2],
        "number": 4,
        "float": 0.5,
        "yes": True,
        "path": str(tmp_path),
        "tuple": [1, None, "x"],
        "3": "key",
    }


def test_plain_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="object cannot stand in a JSON record"):
        plain({"x": object()})


def test_json_is_read_back_and_rubbish_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1.5, math.nan]})
    assert read_json(tmp_path / "a.json") == {"x": [1.5, None]}
    (tmp_path / "half.json").write_text(json.dumps({"x": 1})[:4])
    (tmp_path / "list.json").write_text("[1]")
    for name in ("half.json", "list.json", "absent.json"):
        assert read_json(tmp_path / name) is None


def test_remove_tree_does_not_mind_an_absent_folder(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    remove_tree(tmp_path / "x")
    remove_tree(tmp_path / "x")
    assert not (tmp_path / "x").exists()
