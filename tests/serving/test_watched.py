"""Files that change: re-read when they do, kept when they cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from serving.errors import BadSettings
from serving.watched import Watched, read_bytes


@dataclass
class Word:
    """A file of one word, read by the rule that it is no `bad`; and a clock."""

    path: Path
    now: float = 0.0
    reads: int = field(default=0)

    def read(self) -> str:
        self.reads += 1
        word = read_bytes(self.path, flag="--word").decode()
        if word == "bad":
            raise BadSettings("--word is bad")
        return word

    def watched(self) -> Watched[str]:
        return Watched([self.path], self.read, clock=lambda: self.now, interval=1.0)


@pytest.fixture
def word(tmp_path: Path) -> Word:
    path = tmp_path / "word"
    path.write_text("one")
    return Word(path)


def test_an_unchanged_file_is_read_once(word: Word) -> None:
    watched = word.watched()
    for second in range(5):
        word.now = float(second)
        assert watched.current() == "one"
    assert word.reads == 1


def test_a_change_is_seen_at_the_next_look_and_not_before(word: Word) -> None:
    watched = word.watched()
    word.path.write_text("three")
    word.now = 0.5
    assert watched.current() == "one"
    word.now = 1.0
    assert watched.current() == "three"


def test_a_link_that_leads_elsewhere_is_a_change(word: Word, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(word.path)
    linked = Word(link)
    watched = linked.watched()
    other = tmp_path / "other"
    other.write_text("two")
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other)
    fresh.replace(link)
    linked.now = 1.0
    assert watched.current() == "two"


def test_what_is_no_good_leaves_the_old_value_and_is_logged_once(word: Word) -> None:
    watched = word.watched()
    word.path.write_text("bad")
    with structlog.testing.capture_logs() as logs:
        for second in range(1, 4):
            word.now = float(second)
            assert watched.current() == "one"
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert logs[0]["error"] == "--word is bad"
    word.path.write_text("good")
    word.now = 4.0
    assert watched.current() == "good"


def test_a_file_that_goes_away_leaves_the_old_value(word: Word) -> None:
    watched = word.watched()
    word.path.unlink()
    word.now = 1.0
    assert watched.current() == "one"


def test_the_first_reading_must_succeed(word: Word) -> None:
    word.path.unlink()
    with pytest.raises(BadSettings, match=r"--word '.*word': No such file or directory; give a file"):
        word.watched()
