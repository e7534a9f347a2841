"""What the buttons do, without a browser, against a real service."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from demo.asking import Asker
from demo.handlers import INFER, Page
from tests.live import free_port

EXAMPLES = {"imdb": ("the plot drags", "a good film"), "shoes": ("they fit",)}


@pytest.fixture
def page(asker: Asker, tmp_path: Path) -> Page:
    return Page(asker, examples=EXAMPLES, report=tmp_path / "report.html", folder=tmp_path)


@pytest.fixture
def lonely(tmp_path: Path) -> Page:
    """A page whose service is down."""
    asker = Asker(f"127.0.0.1:{free_port()}")
    return Page(asker, examples=EXAMPLES, report=None, folder=tmp_path)


def sheet(folder: Path, rows: int = 30) -> str:
    path = folder / "mine.csv"
    lines = [f"{n},text number {n},{'imdb' if n % 2 else 'tweets'}\n" for n in range(rows)]
    path.write_text("id,review,domain\n" + "".join(lines), encoding="utf-8")
    return str(path)


def test_a_look_fills_the_choices_and_leaves_them_alone_while_nothing_changes(page: Page) -> None:
    seen, status, domain, models, model, samples, button = page.look(())
    assert "none, routing; none answers by default" in status
    assert domain["choices"] == [INFER, "imdb", "tweets"]
    assert (models["choices"], models["value"], model["value"]) == (["none", "routing"], ["none"], "none")
    assert samples.count("data-text=") == 2  # the model knows no shoes
    assert button["interactive"] is True
    assert page.look(seen) == (gr.skip(),) * 7


def test_a_model_that_becomes_ready_resets_nobodys_choice(page: Page) -> None:
    now, *_ = page.look(())
    before = (("none",), ("routing",), *now[2:])
    _, status, domain, models, model, _, _ = page.look(before)
    assert "none, routing" in status
    assert (models["choices"], model["choices"]) == (["none", "routing"], ["none", "routing"])
    assert not any("value" in update for update in (domain, models, model))
    gone = (("none", "moe"), (), *now[2:])
    assert page.look(gone)[3]["value"] == ["none"], "a choice that is gone is made anew"


def test_a_service_that_is_down_is_an_alert_and_nothing_can_be_asked(lonely: Page) -> None:
    _, status, _, models, model, samples, button = lonely.look(())
    assert 'role="alert"' in status
    assert "make serve" in status
    assert (models["choices"], model["value"], button["interactive"]) == ([], None, False)
    assert samples.count("data-text=") == 3
    told = lonely.classify("fine", INFER, ["none", "routing"])
    assert told.count("No service answers") == 1


def test_a_text_is_answered_by_every_chosen_variant_with_typical_words(page: Page) -> None:
    html = page.classify("the plot drags", "imdb", ["none", "routing"])
    assert html.count("<section") == 2
    assert "as you said" in html
    assert "typical words" in html
    assert "plot" in html.split("typical words")[1]
    assert "inferred" in page.classify("the plot drags", INFER, ["none"])


def test_what_is_missing_is_said(page: Page) -> None:
    assert "Type a text" in page.classify(" \n", INFER, ["none"])
    assert "at least one variant" in page.classify("fine", None, [])


def test_one_unknown_variant_does_not_hide_the_answer_of_the_other(page: Page) -> None:
    html = page.classify("fine", INFER, ["none", "moe"])
    assert html.count("<section") == 2
    assert html.count('role="alert"') == 1


def test_an_example_is_taken_as_it_is(page: Page) -> None:
    event = gr.EventData(None, {"text": "they <fit>"})
    assert page.taken(event) == "they <fit>"


def test_a_file_is_looked_through_when_it_is_chosen(page: Page, tmp_path: Path) -> None:
    told, text, domain, start = page.opened(sheet(tmp_path))
    assert "30 rows, columns: id, review, domain." in told
    assert (text["value"], domain["value"], start["interactive"]) == ("review", "domain", True)
    assert page.opened(None)[3]["interactive"] is False
    (tmp_path / "mine.csv").write_text("", encoding="utf-8")
    told, *_, start = page.opened(str(tmp_path / "mine.csv"))
    assert "is empty" in told
    assert start["interactive"] is False


def test_a_file_comes_back_with_answers(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.handlers.REDRAW", 0.0)
    steps = list(page.run_file(sheet(tmp_path), "review", "domain", "routing"))
    assert len(steps) == 32  # the start, each row, the end
    told, table, taken = steps[-1]
    assert "30 of 30 rows, 100 %" in told
    assert table.count("<tr>") == 13
    with Path(taken["value"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["answered_domain"] for row in rows[:2]] == ["tweets", "imdb"]
    assert all(row["domain_source"] == "GIVEN" and not row["error"] for row in rows)
    assert Path(taken["value"]).name == "mine-classified.csv"


def test_rows_without_text_are_counted(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("text,n\nfine,1\n ,2\n", encoding="utf-8")
    told = list(page.run_file(str(path), "text", INFER, "none"))[-1][0]
    assert "1 could not be classified" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((None, "review", INFER, "none"), "Choose a CSV file first."),
        (("gone.csv", None, INFER, "none"), "Choose a CSV file first."),
        (("gone.csv", "review", INFER, None), "No variant is ready."),
        (("gone.csv", "review", INFER, "none"), "gone.csv cannot be read"),
    ],
)
def test_a_file_that_cannot_be_done_is_said(page: Page, arguments: Any, told: str) -> None:
    (step,) = page.run_file(*arguments)
    assert told in step[0]
    assert step[2]["interactive"] is False


def test_a_service_that_goes_away_during_a_file_is_said(lonely: Page, tmp_path: Path) -> None:
    assert "No service answers" in list(lonely.run_file(sheet(tmp_path), "review", INFER, "none"))[-1][0]


def test_the_report_runs_no_script_and_keeps_to_its_frame(page: Page, tmp_path: Path) -> None:
    assert "There is no report of a sweep yet. It would be at" in page.report()
    (tmp_path / "report.html").write_text('<h1>"Sweep"</h1>', encoding="utf-8")
    html = page.report()
    assert 'sandbox=""' in html
    assert 'srcdoc="&lt;h1&gt;&quot;Sweep&quot;&lt;/h1&gt;"' in html


def test_stopping_is_said(page: Page) -> None:
    assert "Stopped" in page.stopped()
