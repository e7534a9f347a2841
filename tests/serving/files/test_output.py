"""The output of a run: whole or resumable, whatever happens in between."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyarrow import parquet

from serving.calls import Failure
from serving.files.columns import Column, answer_columns, flat, output_columns, single
from serving.files.encoders import encoder_for
from serving.files.formats import format_to_write
from serving.files.output import Output
from serving.files.rows import BadInput
from serving.files.state import fingerprint, read_state, state_path

COLUMNS = (
    Column("row", "integer"),
    Column("score", "number"),
    Column("good", "flag"),
    Column("s", "numbers"),
)
ASKED = {"input": {"bytes": 1}, "chunk": 2}


def chunk(first: int, count: int = 2) -> list[dict[str, Any]]:
    return [
        {"row": n, "score": single(n / 3), "good": n % 2 == 0, "s": [0.5, 0.25]}
        for n in range(first, first + count)
    ]


def opened(path: Path, asked: dict[str, Any] = ASKED, **how: bool) -> Output:
    output = Output(path, asked, **how)
    if not output.complete:
        output.begin(encoder_for(format_to_write(str(path)), COLUMNS), {"sha256": "a"})
    return output


def write(path: Path, chunks: Sequence[list[dict[str, Any]]]) -> bytes:
    output = opened(path)
    for rows in chunks:
        output.append(rows, failed=1)
    output.finish()
    output.close()
    return path.read_bytes()


NAMES = ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.jsonl.gz", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_cut_anywhere_ends_in_the_same_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / "whole").mkdir()
    whole = write(tmp_path / "whole" / name, [chunk(0), chunk(2), chunk(4, 1)])
    path = tmp_path / name
    output = opened(path)
    output.append(chunk(0), failed=1)
    output._write(b"half of a chunk that no state knows of")
    output.close()
    assert not path.exists()
    again = opened(path)
    assert (again.resumed, again.state.rows, again.state.failed) == (True, 2, 1)
    again.append(chunk(2), failed=1)
    again.append(chunk(4, 1), failed=1)
    again.finish()
    again.close()
    assert path.read_bytes() == whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([name, f"{name}.state.json", "whole"])
    finished = Output(path, ASKED)
    assert finished.complete
    assert finished.state.rows == 5
    finished.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", NAMES)
def test_every_format_holds_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    raw = write(path, [chunk(0), chunk(2)])
    text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8", "replace")
    if "jsonl" in name:
        assert [json.loads(line) for line in text.splitlines()] == chunk(0, 4)
    elif "parquet" in name:
        table = parquet.read_table(path).to_pylist()
        assert [{**row, "score": single(row["score"])} for row in table] == chunk(0, 4)
    else:
        found = list(csv.reader(text.splitlines(), delimiter="\t" if "tsv" in name else ","))
        assert found[0] == ["row", "score", "good", "s"]
        assert found[2] == ["1", "0.33333334", "false", "[0.5, 0.25]"]


def test_a_run_that_was_killed_while_it_finished_finishes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    output = opened(path)
    output.append(chunk(0), failed=0)
    encoder = encoder_for(format_to_write("a.csv"), COLUMNS)
    encoder.finish(tmp_path / "a.csv.part", path)  # the name is in place, the state does not say so yet
    output.close()
    again = opened(path)
    assert (again.complete, again.state.rows) == (False, 2)
    again.finish()
    again.close()
    assert len(path.read_text().splitlines()) == 3


def test_what_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("precious")
    with pytest.raises(BadInput, match="exists and is not the output of an earlier run; add --overwrite"):
        Output(path, ASKED)
    assert path.read_text() == "precious"
    assert not (tmp_path / "a.csv.part").exists()
    output = opened(path, overwrite=True)
    output.finish()
    output.close()
    with pytest.raises(BadInput, match="exists and is not"):
        Output(path, ASKED, resumable=False)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({**ASKED, "input": {"bytes": 2}}, "is of another input; add --overwrite"),
        ({**ASKED, "chunk": 3}, "is made with chunk 2, not 3; add --overwrite"),
        ({**ASKED, "more": 3}, "is made with more None, not 3"),
    ],
)
def test_a_run_that_differs_is_refused(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.csv"
    write(path, [chunk(0)])
    with pytest.raises(BadInput, match=message):
        Output(path, asked)
    opened(path, asked, overwrite=True).close()


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    output = opened(path)
    output.append(chunk(0), failed=0)
    output.close()
    again = Output(path, ASKED)
    with pytest.raises(BadInput, match="was begun with sha256 a, and now it is b; add --overwrite"):
        again.begin(encoder_for(format_to_write("a.csv"), COLUMNS), {"sha256": "b"})
    again.close()


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    output = opened(tmp_path / "a.csv")
    with pytest.raises(BadInput, match="another process is writing"):
        Output(tmp_path / "a.csv", ASKED)
    output.close()


def test_a_part_file_that_went_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    output = opened(path)
    output.append(chunk(0), failed=0)
    output.close()
    (tmp_path / "a.csv.part").unlink()
    again = opened(path)
    assert again.state.rows == 0
    again.close()


def test_a_broken_state_and_a_bad_place_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path, [chunk(0)])
    for content in ("{", "[]", '{"version": 0}', '{"version": 1, "x": 1}'):
        state_path(path).write_text(content)
        with pytest.raises(BadInput, match="unreadable state"):
            read_state(path)
    with pytest.raises(BadInput, match="there is no folder"):
        Output(tmp_path / "no" / "a.csv", ASKED)
    with pytest.raises(BadInput, match="give a readable file"):
        fingerprint(tmp_path / "no")
    (tmp_path / "b.csv.part").mkdir()
    with pytest.raises(BadInput, match="choose another place"):
        Output(tmp_path / "b.csv", ASKED)


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = opened(tmp_path / "a.csv")
    output.append(chunk(0), failed=0)

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(output, "_write", full)
        with pytest.raises(BadInput, match="No space left on device; 2 rows are safe, make room"):
            output.append(chunk(2), failed=0)
    output.close()
    again = opened(tmp_path / "a.csv")
    assert again.state.rows == 2
    again.close()


def test_an_error_fills_its_own_columns_and_no_other() -> None:
    failure = Failure(grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_TEXT", "the text is empty")
    row = flat(failure, ["negative", "positive"])
    assert list(row) == [column.name for column in answer_columns(["negative", "positive"])]
    assert {name: value for name, value in row.items() if value is not None} == {
        "error_code": "INVALID_ARGUMENT", "error_reason": "EMPTY_TEXT", "error_message": "the text is empty",
    }  # fmt: skip


def test_a_kept_column_gives_way_to_the_outputs_own() -> None:
    names = [column.name for column in output_columns(["x"], ["label", "body", "id"])]
    assert names[:6] == ["row", "id", "input_label", "body", "input_id", "label"]
    assert len(set(names)) == len(names)
