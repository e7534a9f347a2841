"""The site builds strictly, with every link and anchor in place, and shows nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT

LOADED = re.compile(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"'](?:https?:)?//([^\"'/]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return folder


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    found = list(site.rglob("*.html"))
    assert len(found) > 30
    strangers = {host for page in found for host in LOADED.findall(page.read_text(encoding="utf-8"))}
    assert strangers == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//", styles)


def test_the_reference_of_python_shows_the_client(site: Path) -> None:
    page = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "classify_stream" in page
    assert "load_pretrained" in page


def test_links_that_leave_docs_become_paths(site: Path) -> None:
    page = (site / "serving" / "index.html").read_text(encoding="utf-8")
    assert "<code>protos/stratified/v1" in page
    assert 'href="../protos' not in page
