"""The page in a real headless Chromium, before a real service with tiny bundles; run by `make test-browser`.

Screenshots go to the folder that STRATIFIED_SCREENSHOTS names, of the models in STRATIFIED_RESULTS if given.
STRATIFIED_CHROMIUM is the executable, `chromium` on the PATH unless it is given.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live import free_port
from tests.serving.bundles import results

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
CHROMIUM = os.environ.get("STRATIFIED_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH, and no STRATIFIED_CHROMIUM"),
]
SERVED = Path(os.environ.get("STRATIFIED_RESULTS", ""))
WIDTHS = {"desk": {"width": 1200, "height": 900}, "phone": {"width": 390, "height": 844}}
SECONDS = 60_000  # milliseconds of patience


@contextmanager
def running(models: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`stratified-demo` on `models`; its address and process."""
    quiet = ["--probe-port=0", "--metrics-port=0", "--engine=torch", "--threads=1", "--log-level=ERROR"]
    command = [sys.executable, "-m", "demo", "--models", str(models), "--page-port", "0", *flags]
    command += ["--port", str(free_port()), *(f"--serve-flag={flag}" for flag in quiet)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[1], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with two variants and a report: tiny ones, or those of STRATIFIED_RESULTS."""
    if SERVED.name:
        return SERVED
    folder = Path(shutil.copytree(results(), tmp_path_factory.mktemp("demo") / "results"))
    (folder / "report.html").write_text("<h1>A sweep</h1>", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    with running(models) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Any, address: str, *, size: str = "desk", scheme: str = "light") -> Iterator[Any]:
    """A new visitor on the loaded page; nothing may be asked of another host, and no script may fail."""
    context = browser.new_context(viewport=WIDTHS[size], color_scheme=scheme, accept_downloads=True)
    page, strangers, errors = context.new_page(), [], []
    page.on("request", lambda r: strangers.append(r.url) if _strange(r.url, address) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_function(
        "(told => told.includes('answers by default') && !told.includes('; loading'))"
        "(document.querySelector('#status')?.innerText ?? '')",
        timeout=SECONDS,
    )
    yield page
    assert (strangers, errors) == ([], [])
    context.close()


def _strange(url: str, address: str) -> bool:
    return not url.startswith((address, address.replace("http", "ws"), "data:", "blob:", "about:"))


def ask(page: Any, text: str) -> str:
    """Type a text and click; what the page answers."""
    page.fill("#text textarea", text)
    page.click("#classify")
    return answered(page)


def answered(page: Any) -> str:
    page.wait_for_selector("#answers .verdict, #answers .problem", timeout=SECONDS)
    return str(page.inner_text("#answers"))


def shoot(page: Any, name: str) -> None:
    """Keep a picture, where somebody asked for it."""
    if folder := os.environ.get("STRATIFIED_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_type_choose_click_read(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        for box in page.locator("#models label").all():
            box.locator("input").set_checked(box.inner_text().strip() in ("none", "routing"))
        page.click("#domain input")
        page.get_by_role("option", name="imdb").click()
        told = ask(page, "The plot drags, but the ending is worth it.")
        for part in (
            "Calibrated scores",
            "as you said",
            "Which domain it looks like",
            "typical words",
            "a batch of",
        ):
            assert part in told
        assert page.locator("#answers section").count() == 2
        assert page.locator("#answers .token").count() > 10
        shoot(page, "demo-text")


def test_a_text_is_shown_as_text_whatever_it_holds(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        nasty = "<img src=x onerror='document.title=\"owned\"'> ${document.title='owned'} {{value}}"
        assert "Calibrated scores" in ask(page, nasty)
        assert page.locator("#answers img").count() == 0
        shown = page.evaluate("document.querySelector('#answers .text').textContent.replace(/\\d/g, '')")
        assert "<img src=x onerror=" in shown
        assert "{{value}}" in shown
        assert page.title() == "Stratified Sentiment"


def test_a_long_text_shows_what_was_cut(browser: Any, address: str) -> None:
    with visit(browser, address, scheme="dark") as page:
        assert "tokens were read" in ask(page, "I loved the first hour of it and hated the rest. " * 20)
        assert page.locator("#answers del").count() >= 1
        assert page.evaluate("document.body.classList.contains('dark')")
        shoot(page, "demo-dark")


def test_by_keyboard_alone(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        page.focus("#text textarea")
        page.keyboard.type("Worth every minute.")
        page.keyboard.press("Shift+Enter")
        assert "Calibrated scores" in answered(page)
        page.focus("#classify")
        for _ in range(20):  # on to the first example, whatever stands between
            page.keyboard.press("Tab")
            if page.evaluate("!!document.activeElement.dataset.text"):
                break
        text = page.evaluate("document.activeElement.dataset.text")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "text => document.querySelector('#text textarea').value == text", arg=text, timeout=SECONDS
        )


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, address: str) -> None:
    with visit(browser, address, size="phone") as page:
        page.locator("ul.examples button").first.click()
        assert "Calibrated scores" in answered(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shoot(page, "demo-phone")


def test_a_file_goes_up_and_comes_back(browser: Any, address: str, tmp_path: Path) -> None:
    rows = "".join(f"{n},The plot drags {n} times,imdb\n" for n in range(300))
    (tmp_path / "reviews.csv").write_text(f"id,review,domain\n{rows}", encoding="utf-8")
    with visit(browser, address) as page:
        page.get_by_role("tab", name="A file").click()
        page.locator("#file input[type=file]").set_input_files(tmp_path / "reviews.csv")
        page.wait_for_selector("#told .notice", timeout=SECONDS)
        assert "300 rows" in page.inner_text("#told")
        page.click("#start")
        page.wait_for_selector("#going .notice", timeout=SECONDS)
        assert "300 of 300 rows" in page.inner_text("#going")
        with page.expect_download() as download:
            page.click("#take")
        download.value.save_as(tmp_path / "answers.csv")
        shoot(page, "demo-file")
    lines = (tmp_path / "answers.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 301
    assert all(",GIVEN," in line for line in lines[1:])


def test_the_report_is_shown(browser: Any, address: str) -> None:
    with visit(browser, address) as page:
        page.get_by_role("tab", name="The report").click()
        page.wait_for_selector("iframe.report", timeout=SECONDS)
        assert page.frame_locator("iframe.report").locator("h1").count() == 1
        shoot(page, "demo-report")


def test_a_service_that_goes_down_is_said(browser: Any, models: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "serving",
        "--models",
        str(models),
        "--probe-port",
        "0",
        "--engine",
        "torch",
    ]
    port = free_port()
    command += ["--metrics-port", "0", "--port", str(port), "--log-level", "ERROR", "--settle-seconds", "0"]
    web = [sys.executable, "-m", "demo", "--target", f"127.0.0.1:{port}", "--page-port", "0"]
    with (
        subprocess.Popen(command) as service,
        subprocess.Popen(web, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            with visit(browser, process.stdout.readline().split()[1]) as page:
                service.terminate()
                service.wait(60)
                assert "No service answers" in ask(page, "Is anybody there?")
                page.wait_for_selector("#status .problem", timeout=SECONDS)
                shoot(page, "demo-down")
        finally:
            service.terminate()
            process.terminate()
