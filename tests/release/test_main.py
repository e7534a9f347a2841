"""A release: what is refused, what the changelog becomes; and a wheel that is built and looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from release import __main__ as program

OLD = "# Changelog\n\n## Unreleased\n\n### Added\n- Shoes.\n\n## 0.0.9 - 2026-01-01\n\n- Hats.\n"


def project(folder: Path, changelog: str = OLD) -> Path:
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.1.0"\n', encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    return folder


def test_the_entry_takes_what_was_unreleased_and_leaves_room() -> None:
    changed = program.entry(OLD, "0.1.0", "2026-11-25")
    assert changed.index("## Unreleased\n\n## 0.1.0 - 2026-11-25\n\n### Added\n- Shoes.") > 0
    assert changed.endswith("## 0.0.9 - 2026-01-01\n\n- Hats.\n")


@pytest.mark.parametrize(
    ("version", "changelog", "told"),
    [
        ("0.2.0", OLD, "not that of pyproject.toml, '0.1.0'"),
        ("0.1.0", "# Changelog\n\n## Unreleased\n\n## 0.0.9 - x\n", "nothing under '## Unreleased'"),
        ("0.1.0", f"{OLD}\n## 0.1.0 - 2026-01-02\n", "an entry for 0.1.0 already"),
    ],
)
def test_what_does_not_agree_is_refused_and_nothing_is_built(
    tmp_path: Path, version: str, changelog: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path, changelog)
    assert program.main([version], root=root) == 2
    assert told in capsys.readouterr().err
    assert not (root / "dist").exists()
    assert (root / "CHANGELOG.md").read_text(encoding="utf-8") == changelog


def test_a_build_that_fails_leaves_the_changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    monkeypatch.setattr(program, "build", lambda root, out: 7)
    assert program.main(["0.1.0"], root=root) == 7
    assert (root / "CHANGELOG.md").read_text(encoding="utf-8") == OLD


def test_a_build_that_is_good_writes_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    monkeypatch.setattr(program, "build", lambda root, out: 0)
    monkeypatch.setattr(program, "try_out", lambda out, version, whole: 0)
    assert program.main(["0.1.0"], root=root) == 0
    assert f"## 0.1.0 - {program.today()}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
