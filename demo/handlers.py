"""What the page's buttons do, apart from where they stand: each handler takes what was typed and returns what
is shown.

What is asked and drawn lives in `asking`, `sheet`, `words` and `drawing`; of Gradio it knows the words for
"change this" and "leave that".
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr

from demo import drawing
from demo.asking import Asker, State
from demo.examples import choose
from demo.sheet import ADDED, BadFile, Sheet, answer_sheet, inspect
from demo.words import typical_words
from serving.client import CallFailed, Failure

INFER = "let the model infer it"
SHOWN_ROWS = 12
REDRAW = 0.4  # seconds between two drawings of a file's progress
WORD_BATCH = 64

Examples = Mapping[str, Sequence[str]]


class Page:
    """The handlers; safe to share between visitors."""

    def __init__(self, asker: Asker, *, examples: Examples, report: Path | None, folder: Path) -> None:
        """`report`: the sweep's report.html; `folder`: where answered files are written."""
        self.asker, self._examples, self._report, self._folder = asker, examples, report, folder
        self._words: dict[str, drawing.Words] = {}
        self._lock = threading.Lock()

    def look(self, seen: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the service can do now; leaves everything as it is while nothing has changed.

        What a visitor chose stays while all of it is there: a model that becomes ready is one more to choose.
        Only the first one with strata is put beside a default that has none.
        """
        state = self.asker.state()
        now = (state.ready, state.loading, state.default, state.domains, state.problem, state.first)
        if now == seen:
            return (gr.skip(),) * 7
        chosen, domains = list(state.first), [INFER, *state.domains]
        known = bool(seen and seen[0]) and set(seen[0]) <= set(state.ready)
        more = known and (seen[3], seen[5]) == (state.domains, state.first)
        first = chosen[0] if chosen else None
        values: list[dict[str, Any]] = [{"value": INFER}, {"value": chosen}, {"value": first}]
        domain, models, model = ({} if more else value for value in values)
        return (
            now,
            self.status(state),
            gr.update(choices=domains, **domain),
            gr.update(choices=list(state.ready), **models),
            gr.update(choices=list(state.ready), **model),
            drawing.examples(choose(self._examples, state.domains)),
            gr.update(interactive=bool(state.ready)),
        )

    def taken(self, event: gr.EventData) -> str:
        """The text of an example that was clicked."""
        return str(event._data["text"])

    def status(self, state: State) -> str:
        """One line above everything."""
        if state.problem:
            return drawing.problem(state.problem)
        more = f"; loading {', '.join(state.loading)}" if state.loading else ""
        names = ", ".join(state.ready)
        return drawing.notice(
            f"Service {self.asker.target}: {names}; {state.default} answers by default{more}."
        )

    def classify(self, text: str, domain: str | None, models: Sequence[str]) -> str:
        """Answers of the chosen variants, or one sentence about what is missing."""
        if not (text or "").strip():
            return drawing.problem("Type a text, or take one of the examples.")
        if not models:
            return drawing.problem("Choose at least one variant.")
        named = "" if domain in (None, INFER) else str(domain)
        replies = self.asker.classify(text, domain=named, models=models)
        failed = {r.model: r.answer for r in replies if isinstance(r.answer, Failure)}
        explain = {name: self.asker.explain(failure) for name, failure in failed.items()}
        if len(failed) == len(replies) and len(set(explain.values())) == 1:
            return drawing.problem(next(iter(explain.values())))
        words = {
            r.model: self._typical(r.answer.model.sha256, r.model, len(r.answer.strata))
            for r in replies
            if not isinstance(r.answer, Failure) and r.answer.strata
        }
        return drawing.answers(text, replies, words, explain)

    def opened(self, path: str | None) -> tuple[Any, ...]:
        """What is in a file that was handed over: its columns, guessed, and its first problem."""
        nothing = gr.update(choices=[], value=None)
        if not path:
            return "", nothing, nothing, gr.update(interactive=False)
        try:
            sheet = inspect(Path(path))
        except BadFile as error:
            return drawing.problem(str(error)), nothing, nothing, gr.update(interactive=False)
        told = drawing.notice(f"{sheet.count:,} rows, columns: {', '.join(sheet.header)}.")
        domain = sheet.domain_column or INFER
        return (
            told,
            gr.update(choices=list(sheet.header), value=sheet.text_column),
            gr.update(choices=[INFER, *sheet.header], value=domain),
            gr.update(interactive=True),
        )

    def run_file(
        self, path: str | None, text: str | None, domain: str | None, model: str | None
    ) -> Iterator[tuple[Any, ...]]:
        """Classify a file: progress, first rows, and the file to take away, as they come."""
        taken = gr.update(value=None, interactive=False)
        if not path or not text:
            yield drawing.problem("Choose a CSV file first."), "", taken
            return
        if not model:
            yield drawing.problem("No variant is ready."), "", taken
            return
        try:
            sheet = inspect(Path(path))
            named = "" if domain in (None, INFER) else str(domain)
            yield from self._answered(sheet, text, named, model)
        except BadFile as error:
            yield drawing.problem(str(error)), gr.skip(), taken
        except CallFailed as error:
            yield drawing.problem(self.asker.explain(error.failure)), gr.skip(), taken

    def stopped(self) -> str:
        """What stands there after somebody stopped a file."""
        return drawing.notice("Stopped.")

    def _answered(self, sheet: Sheet, text: str, domain: str, model: str) -> Iterator[tuple[Any, ...]]:
        target = Path(tempfile.mkdtemp(dir=self._folder)) / f"{sheet.path.stem}-classified.csv"
        rows: list[list[str]] = []
        header = [*sheet.header, *ADDED]
        begun = drawn = time.monotonic()
        done = failed = 0
        yield drawing.progress(0, sheet.count, 0), "", gr.update(value=None, interactive=False)
        for done, row in answer_sheet(
            sheet, target, classify=lambda items: self.asker.stream(items, model), text=text, domain=domain
        ):
            failed += bool(row[-1])
            if len(rows) < SHOWN_ROWS:
                rows.append(row)
            now = time.monotonic()
            if now - drawn >= REDRAW:
                drawn = now
                rate = done / (now - begun)
                yield drawing.progress(done, sheet.count, rate), drawing.table(header, rows), gr.skip()
        seconds = time.monotonic() - begun
        end = (
            f"{done:,} rows in {seconds:.1f} s; {failed:,} could not be classified, and say why."
            if failed
            else (f"{done:,} rows in {seconds:.1f} s.")
        )
        told = drawing.progress(done, sheet.count, done / max(seconds, 1e-9)) + drawing.notice(end)
        yield told, drawing.table(header, rows), gr.update(value=str(target), interactive=True)

    def report(self) -> str:
        """The sweep's report in a frame of its own that runs no script, or where to get one."""
        if self._report is None or not self._report.is_file():
            place = f" It would be at {self._report}." if self._report else ""
            return drawing.notice(f"There is no report of a sweep yet.{place} `make sweep` writes one.")
        page = escape(self._report.read_text(encoding="utf-8"), quote=True)
        frame = 'class="report" sandbox="" title="Report of the sweep" tabindex="0"'
        return f'<iframe {frame} srcdoc="{page}"></iframe>'

    def _typical(self, sha256: str, model: str, strata: int) -> drawing.Words:
        """Typical words of each stratum, asked for once for each bundle."""
        with self._lock:
            if sha256 not in self._words:
                texts = list(chain.from_iterable(self._examples.values()))
                answered = [
                    pair
                    for start in range(0, len(texts), WORD_BATCH)
                    for pair in self.asker.explained(texts[start : start + WORD_BATCH], model)
                ]
                if not answered:
                    return ()
                self._words[sha256] = typical_words(answered, strata=strata)
            return self._words[sha256]
