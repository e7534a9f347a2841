"""The command line of callers: texts, files, stdin, tables, JSON, exit codes."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.classify import BAD_INPUT, GOOD, REFUSED, SOME_FAILED, UNREACHABLE, main
from tests.serving.conftest import Start


@dataclass
class Ran:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


async def run(start: Start, capsys: pytest.CaptureFixture[str], *argv: str, **values: object) -> Ran:
    running = await start(**values)
    capsys.readouterr()
    code = await asyncio.to_thread(main, [*argv, "--target", running.target])
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)


async def test_one_text_is_a_table(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    ran = await run(start, capsys, "good film", "--domain", "imdb")
    assert ran.code == GOOD
    assert "good film" in ran.out
    assert "imdb (given)" in ran.out


async def test_explain_adds_a_table_of_tokens(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    ran = await run(start, capsys, "good film", "--explain")
    assert "[CLS]" in ran.out
    assert "saliency" in ran.out


async def test_json_has_an_object_a_text_and_errors_in_place(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = await run(start, capsys, "good", " ", "bad", "--json", "--top-k", "1", "--logits", "--timings")
    assert ran.code == SOME_FAILED
    good, empty, _ = ran.rows
    assert good["id"] == "1"
    assert good["scores"] == [{"label": good["label"], "score": good["score"]}]
    assert good["strata"][0].keys() == {"index", "occupancy"}  # type: ignore[index]  # a list of objects
    assert good["timings"]
    assert empty["error"]["reason"] == "EMPTY_TEXT"  # type: ignore[index]  # an object


async def test_a_table_shows_errors_too(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    ran = await run(start, capsys, "good", " ")
    assert ran.code == SOME_FAILED
    assert "INVALID_ARGUMENT" in ran.out


async def test_a_file_is_streamed(start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"text {number}" for number in range(150)) + "\n\n")
    ran = await run(start, capsys, "--input", str(path), "--json")
    assert ran.code == GOOD
    assert [row["id"] for row in ran.rows] == [str(number) for number in range(1, 151)]


async def test_a_broken_line_costs_nobody_else(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "good", "domain": "tweets", "id": "x"}\n{bad\n{"text": "good"}\n')
    ran = await run(start, capsys, "--input", str(path), "--json")
    assert ran.code == SOME_FAILED
    first, broken, last = ran.rows
    assert (first["id"], first["domain"]) == ("x", "tweets")
    assert broken["error"]["reason"] == "BAD_ROW"  # type: ignore[index]  # an object
    assert last["label"] == first["label"]


async def test_a_table_is_read_and_printed(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("body,where\ngood film,imdb\n")
    ran = await run(start, capsys, "--input", str(path), "--text-column", "body", "--domain-column", "where")
    assert ran.code == GOOD
    assert "imdb (given)" in ran.out


async def test_stdin_is_read(
    start: Start, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\nbad\n")))
    ran = await run(start, capsys, "--input", "-", "--json")
    assert len(ran.rows) == 2


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ((), BAD_INPUT, "give either texts or --input"),
        (("a", "--input", "b"), BAD_INPUT, "give either texts or --input"),
        (("--input", "/nowhere.txt"), BAD_INPUT, "/nowhere.txt"),
        (("",), REFUSED, "INVALID_ARGUMENT: the text is empty"),
        (("a", "--model", "mars"), REFUSED, "NOT_FOUND"),
        (("a", "--model", "routing"), UNREACHABLE, "UNAVAILABLE"),
        (("a", "--domain", "mars", "--strict-domain"), REFUSED, "INVALID_ARGUMENT"),
        (("a " * 50, "--truncation", "reject"), REFUSED, "INVALID_ARGUMENT"),
    ],
)
async def test_what_goes_wrong_is_one_line_and_an_exit_code(
    start: Start, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, text: str
) -> None:
    ran = await run(start, capsys, *argv)
    assert ran.code == code
    [line] = ran.err.splitlines()
    assert line.startswith("stratified-classify: ")
    assert text in line


async def test_health_is_an_exit_code(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert (await run(start, capsys, "health")).code == GOOD
    assert (await run(start, capsys, "health", "--service", "nope")).code == REFUSED
    ran = await run(start, capsys, "health", loaded=False)
    assert (ran.code, ran.out) == (UNREACHABLE, "NOT_SERVING\n")
