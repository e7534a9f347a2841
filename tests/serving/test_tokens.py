"""Files of tokens, and who passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadSettings, Unauthenticated
from serving.tokens import TokenCheck, TokenSource, read_tokens

OLD, NEW = "old-token-0123456789", "new-token-0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# since spring\n{OLD}\n\n  {NEW}  \n")
    return file


def check(path: Path, now: list[float] | None = None) -> TokenCheck:
    seconds = now or [0.0]
    return TokenCheck(path, clock=lambda: seconds[0])


def test_blank_lines_and_comments_are_skipped(path: Path) -> None:
    assert read_tokens(path) == (OLD, NEW)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", r"holds no token; write one a line"),
        ("# nothing\n", r"holds no token"),
        ("short\n", r"line 1: a token has at least 16"),
        (f"{OLD}\nwith a space in between\n", r"line 2: a token has at least 16"),
        ("tökentökentökentöken", r"is no ASCII text"),
    ],
)
def test_a_file_that_cannot_work_is_one_line_without_any_token(
    tmp_path: Path, content: str, rule: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(BadSettings, match=rule) as caught:
        check(file)
    assert "\n" not in str(caught.value)
    assert not any(line and line in str(caught.value) for line in content.split("\n"))


def test_a_missing_file_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"--token-file '.*none': No such file"):
        check(tmp_path / "none")


@pytest.mark.parametrize("header", [f"Bearer {OLD}", f"bearer {NEW}", f"BEARER  {OLD} "])
def test_each_of_several_tokens_passes(path: Path, header: str) -> None:
    check(path)(header)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", OLD, f"Basic {OLD}"])
def test_without_a_token_the_caller_is_told_how_to_send_one(path: Path, header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="authorization: Bearer TOKEN"):
        check(path)(header)


@pytest.mark.parametrize("token", [OLD[:-1], OLD + "x", OLD.upper(), "ünicode-ünicode", "\udcff" * 20])
def test_a_wrong_token_does_not_pass_and_is_not_repeated(path: Path, token: str) -> None:
    with pytest.raises(Unauthenticated, match="not valid here") as caught:
        check(path)(f"Bearer {token}")
    assert token not in str(caught.value)


def test_tokens_are_rotated_without_a_restart(path: Path) -> None:
    now = [0.0]
    checked, source = check(path, now), TokenSource(path, clock=lambda: now[0])
    assert source.metadata() == (("authorization", f"Bearer {OLD}"),)
    path.write_text(f"{NEW}\n")
    now[0] = 1.0
    assert source.metadata() == (("authorization", f"Bearer {NEW}"),)
    checked(f"Bearer {NEW}")
    with pytest.raises(Unauthenticated):
        checked(f"Bearer {OLD}")


@pytest.mark.parametrize("content", ["", "short", None])
def test_while_the_file_is_no_good_nobody_gets_in_and_a_client_keeps_its_token(
    path: Path, content: str | None
) -> None:
    now = [0.0]
    checked, source = check(path, now), TokenSource(path, clock=lambda: now[0])
    path.unlink() if content is None else path.write_text(content)
    now[0] = 1.0
    with pytest.raises(Unauthenticated):
        checked(f"Bearer {OLD}")
    assert source.metadata() == (("authorization", f"Bearer {OLD}"),)
    path.write_text(NEW)
    now[0] = 2.0
    checked(f"Bearer {NEW}")


def test_the_metadata_of_a_call_are_judged_by_their_header(path: Path) -> None:
    check(path).guard({"authorization": f"Bearer {OLD}"})
    with pytest.raises(Unauthenticated):
        check(path).guard({})
