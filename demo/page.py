"""The layout of the page, and which handler each button calls.

Nothing is fetched from elsewhere: system fonts, a style sheet of our own, no counting of visitors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo.handlers import INFER, Page

TITLE = "Stratified Sentiment"
LEAD = (
    "How positive is a text, knowing where it comes from? Each variant of the model answers with calibrated "
    "scores, says which domain the text looks like, and shows in colours the *strata*: the regions of token "
    "space that its words lie in."
)
LOOK = 5.0  # seconds between looks at the service
CSS = Path(__file__).with_name("page.css")
CLICKED = (
    "element.addEventListener('click', event => { const button = event.target.closest('button[data-text]'); "
    "if (button) trigger('click', {text: button.dataset.text}); })"
)


def build(page: Page) -> gr.Blocks:
    """The layout, with every button tied to its handler."""
    blocks: gr.Blocks
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}\n{LEAD}")
        status = gr.HTML(elem_id="status")
        seen = gr.State(())
        with gr.Tabs():
            with gr.Tab("A text"):
                domain, models, samples, button = _text_tab(page)
            with gr.Tab("A file"):
                model = _file_tab(page)
            with gr.Tab("The report") as tab:
                frame = gr.HTML(elem_id="report")
                tab.select(page.report, outputs=frame, show_progress="hidden", api_visibility="private")
        shown = [seen, status, domain, models, model, samples, button]
        for when in (blocks.load, gr.Timer(LOOK).tick):
            when(page.look, inputs=seen, outputs=shown, show_progress="hidden", api_visibility="private")
    return blocks


def _text_tab(page: Page) -> tuple[gr.Dropdown, gr.CheckboxGroup, gr.HTML, gr.Button]:
    with gr.Row():
        with gr.Column(scale=3):
            text = gr.Textbox(
                label="Text",
                lines=5,
                max_lines=14,
                autofocus=True,
                elem_id="text",
                info="Shift+Enter asks too.",
            )
        with gr.Column(scale=2):
            domain = gr.Dropdown(label="Where it comes from", choices=[INFER], value=INFER, elem_id="domain")
            models = gr.CheckboxGroup(label="Variants, side by side", choices=[], elem_id="models")
            button = gr.Button("Classify", variant="primary", elem_id="classify", interactive=False)
    answers = gr.HTML(elem_id="answers")
    samples = gr.HTML(elem_id="examples", js_on_load=CLICKED)
    ask: dict[str, Any] = {"inputs": [text, domain, models], "outputs": answers, "api_visibility": "private"}
    for when in (button.click, text.submit):
        when(page.classify, scroll_to_output=True, **ask)
    samples.click(page.taken, outputs=text, show_progress="hidden", api_visibility="private").then(
        page.classify, scroll_to_output=True, **ask
    )
    return domain, models, samples, button


def _file_tab(page: Page) -> gr.Dropdown:
    with gr.Row():
        with gr.Column(scale=3):
            file = gr.File(
                label="CSV file, with a header line", file_types=[".csv", ".tsv", ".txt"], elem_id="file"
            )
            told = gr.HTML(elem_id="told")
        with gr.Column(scale=2):
            text = gr.Dropdown(label="Column of the texts", choices=[], elem_id="text-column")
            domain = gr.Dropdown(
                label="Column of the domains", choices=[INFER], value=INFER, elem_id="domain-column"
            )
            model = gr.Dropdown(label="Variant", choices=[], elem_id="model")
            with gr.Row():
                start = gr.Button("Classify the file", variant="primary", interactive=False, elem_id="start")
                stop = gr.Button("Stop", elem_id="stop")
    going = gr.HTML(elem_id="going")
    take = gr.DownloadButton("Download the answers", interactive=False, elem_id="take")
    rows = gr.HTML(elem_id="rows")
    file.change(page.opened, inputs=file, outputs=[told, text, domain, start], api_visibility="private")
    run = start.click(
        page.run_file,
        inputs=[file, text, domain, model],
        outputs=[going, rows, take],
        show_progress="hidden",
        api_visibility="private",
    )
    stop.click(
        page.stopped,
        outputs=going,
        cancels=[run],
        show_progress="hidden",
        api_visibility="private",
    )
    return model
