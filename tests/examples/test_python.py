"""The Python examples against the real service."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from examples import async_client, make_shoes, pandas_column, score_with_ray, stream, sync_client
from serving.client import Client
from tests.examples.conftest import ROOT
from tests.serving.bundles import results


def test_sync_client(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    sync_client.main(target)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "routing: labels negative, neutral, positive; domains imdb, tweets"
    assert "domain imdb (GIVEN)" in lines[1]
    assert lines[3] == "'   ': EMPTY_TEXT"
    assert lines[5].startswith("refused: UNKNOWN_DOMAIN")


def test_async_client(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    async_client.main(target)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == async_client.TEXTS


def test_stream(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    stream.main(target, source=io.StringIO("good\n\n,\nbad film\n"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["line"] for row in rows} == {1, 3, 4}
    assert all("label" in row or "error" in row for row in rows)


def test_pandas_column(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    pandas_column.main(target)
    assert "EMPTY_TEXT" in capsys.readouterr().out
    frame = pd.DataFrame({"t": ["good", "bad"], "place": ["imdb", None], "label": [1, 0]}, index=["x", "y"])
    with Client(target) as client:
        found = pandas_column.classify_column(frame, "t", client, domain="place")
    assert list(found.index) == ["x", "y"]
    assert found.loc["x", "domain"] == "imdb"
    assert list(found["label"]) == [1, 0]
    assert found["label_predicted"].isin(["negative", "neutral", "positive"]).all()
    with Client(target) as client:
        twice = pandas_column.classify_column(frame.set_axis(["x", "x"]), "t", client)
    assert list(twice.index) == ["x", "x"]
    assert list(twice["t"]) == ["good", "bad"]


def test_a_scoring_worker_answers_as_the_service_does(target: str) -> None:
    worker = score_with_ray.Worker(str(results()))
    try:
        batch = worker({"text": ["good film", None], "domain": ["imdb", ""]})
    finally:
        worker.close()
    with Client(target) as client:
        answer = client.classify("good film", domain="imdb")
    assert batch["answer_label"][0] == answer.label
    assert batch["answer_score"][0] == pytest.approx(answer.score, abs=1e-5)
    assert batch["answer_label"][1] is None


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "ray[data]"'
)
def test_the_whole_job_on_ray(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["good", "bad"]}).to_parquet(tmp_path / "in.parquet")
    score_with_ray.main(str(results()), str(tmp_path / "in.parquet"), str(tmp_path / "out"))
    assert len(pd.read_parquet(tmp_path / "out")) == 2


def test_made_up_shoes(tmp_path: Path) -> None:
    make_shoes.main(tmp_path / "shoes.csv", 50)
    with (tmp_path / "shoes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["stars"] for row in rows} == {"1", "2", "3", "4", "5"}
    assert len({row["text"] for row in rows}) == 50


def test_every_example_has_a_line_in_the_list() -> None:
    told = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()} - {
        "README.md",
        "__init__.py",
    }
    assert [name for name in sorted(files) if f"`{name}`" not in told] == []
