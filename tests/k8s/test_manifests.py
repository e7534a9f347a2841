"""Every manifest and overlay renders, validates and obeys our rules; what stands alone is the base's."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from k8s.checks import manifests, rendering, rules, schemas

needs_kubectl = pytest.mark.skipif(rendering.kubectl() is None, reason="kubectl is not on the path")


def test_the_schemas_checked_are_the_three_newest_installed() -> None:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    minors = sorted(
        {tuple(map(int, path.name[1:].split("-")[0].split(".")[:2])) for path in folder.glob("v1.*")}
    )
    assert tuple(f"{major}.{minor}" for major, minor in reversed(minors[-3:])) == schemas.VERSIONS


@pytest.mark.parametrize("name", rendering.STANDALONE)
def test_a_self_contained_file_is_the_base_and_valid_alone(name: str) -> None:
    path = rendering.FOLDER / name
    assert path.read_text(encoding="utf-8") == manifests.standalone(name)
    stream = rendering.read(path)
    assert schemas.schema_faults(stream) == []
    assert rules.faults(stream) == []


@needs_kubectl
def test_the_base_renders_the_self_contained_files_unchanged() -> None:
    rendered = {rendering.identity(manifest): manifest for manifest in rendering.render(rendering.BASE)}
    for name in rendering.STANDALONE:
        for manifest in rendering.read(rendering.FOLDER / name):
            assert rendered[rendering.identity(manifest)] == manifest


@needs_kubectl
@pytest.mark.parametrize("folder", [rendering.BASE, *rendering.overlays()], ids=lambda path: path.name)
def test_a_kustomization_renders_valid(folder: Path) -> None:
    stream = rendering.render(folder)
    assert stream
    assert schemas.schema_faults(stream) == []
    assert rules.faults(stream) == []


@needs_kubectl
def test_a_kustomization_that_cannot_render_says_why(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n", encoding="utf-8")
    with pytest.raises(rendering.RenderError, match=r"missing\.yaml"):
        rendering.render(tmp_path)


def test_the_command_prints_what_it_covered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["manifests"])
    monkeypatch.setattr(rendering, "overlays", list)  # each has a test of its own above
    assert manifests.main() == 0
    out = capsys.readouterr().out
    assert "covered      train-job.yaml" in out
    assert "0 faults" in out


def test_writing_changes_nothing_when_nothing_drifted() -> None:
    before = {path: path.read_text(encoding="utf-8") for path in manifests.derived()}
    assert {path: path.read_text(encoding="utf-8") for path in manifests.write()} == before
