"""The committed code is what the .proto files say, and the .proto files are what buf wants."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protos import generate
from protos.stratified.v1 import model_pb2, sentiment_pb2


def test_the_committed_code_is_fresh() -> None:
    assert generate.stale() == []
    assert generate.main(["--check"]) == 0


def copy(tmp_path: Path) -> Path:
    shutil.copytree(generate.HERE, tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = copy(tmp_path)
    monkeypatch.setattr(generate, "HERE", root / "protos")
    monkeypatch.setattr(generate, "REPOSITORY", root)
    return root


def test_a_changed_proto_makes_the_code_stale_until_generated(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = elsewhere / "protos" / "stratified" / "v1" / "model.proto"
    proto.write_text(
        proto.read_text().replace("string error = 5;", "string error = 5;\n  // New.\n  string new = 6;")
    )
    assert generate.main(["--check"]) == 1
    line = capsys.readouterr().err
    assert "model_pb2.py" in line
    assert "run `python -m protos.generate` and commit the result" in line
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_left_over_code_is_stale(elsewhere: Path) -> None:
    (elsewhere / "protos" / "stratified" / "v1" / "old_pb2.py").write_text("")
    assert generate.stale() == ["protos/stratified/v1/old_pb2.py"]


def test_a_proto_that_does_not_compile_is_said_in_the_compilers_words(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "protos" / "stratified" / "v1" / "bad.proto").write_text("nonsense")
    assert generate.main(["--check"]) == 1
    assert "bad.proto" in capsys.readouterr().err


def test_buf_has_nothing_to_say() -> None:
    assert generate.main(["--lint"]) == 0


def test_an_uncommented_field_does_not_lint(elsewhere: Path) -> None:
    proto = elsewhere / "protos" / "stratified" / "v1" / "model.proto"
    proto.write_text(proto.read_text().replace("string error = 5;", "string error = 5;\n  string new = 6;"))
    assert generate.main(["--lint"]) != 0


def test_buf_finds_a_breaking_change_and_no_other(tmp_path: Path) -> None:
    old = copy(tmp_path) / "protos"
    assert generate.main(["--breaking", str(old)]) == 0
    proto = old / "stratified" / "v1" / "model.proto"
    proto.write_text(
        proto.read_text().replace("string error = 5;", "string error = 5;\n  // Old.\n  string old = 6;")
    )
    assert generate.main(["--breaking", str(old)]) != 0


def test_no_buf_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    assert generate.main(["--lint"]) == 2
    assert "pip install buf-bin" in capsys.readouterr().err


def test_the_names_that_callers_rely_on_are_there() -> None:
    def names(message: type) -> set[str]:
        return set(message.DESCRIPTOR.fields_by_name)  # type: ignore[attr-defined]  # a message

    assert names(sentiment_pb2.ClassifyRequest) == {"text", "domain", "model", "options"}
    assert names(sentiment_pb2.BatchItem) == {"id", "text", "domain"}
    wanted = (
        "label label_index score scores domain domain_source domain_scores out_of_domain_score out_of_domain "
        "strata token_count original_token_count truncated warnings model timings"
    )
    assert names(sentiment_pb2.Classification) >= set(wanted.split())
    assert names(sentiment_pb2.ModelVersion) == {"name", "version", "sha256"}
    assert set(model_pb2.DESCRIPTOR.services_by_name["ModelService"].methods_by_name) == {
        "GetModelInfo",
        "ListModels",
    }
