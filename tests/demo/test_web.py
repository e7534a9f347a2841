"""The page's own server: on loopback, with a policy that keeps the browser at home."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest

from demo.asking import Asker
from demo.errors import CannotStart
from demo.handlers import Page
from demo.page import CSS, build
from demo.web import Web, silence
from tests.live import free_port


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(Asker(f"127.0.0.1:{free_port()}"), examples={}, report=None, folder=tmp_path)


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    silence()
    with Web(build(page), port=0, css=CSS) as web:
        assert web.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(web.url, timeout=30) as reply:
            policy, body = reply.headers["Content-Security-Policy"], reply.read().decode()
    assert "default-src 'self'" in policy
    loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?://[^\"]+)", body)
    assert [address for address in loaded if "127.0.0.1" not in address] == []


def test_a_port_in_use_is_said_with_its_cure(page: Page) -> None:
    blocks = build(page)
    with Web(blocks, port=0, css=CSS) as web, pytest.raises(CannotStart, match="give another one") as refused:
        Web(blocks, port=int(web.url.rsplit(":", 1)[1].strip("/")), css=CSS)
    assert refused.value.code == 4
