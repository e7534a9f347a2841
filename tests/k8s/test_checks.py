"""The checks themselves: settings handed to a builder, what an image must say, what a query becomes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.checks import contents, engine, images, queries, smoke
from trainer_job.config import RunConfig


def completed(stdout: str, code: int = 0) -> engine.Completed:
    return subprocess.CompletedProcess([], code, stdout=stdout, stderr="")


def test_pips_settings_lose_sections_and_keep_only_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = ":env:.find-links='/w'\nglobal.index-url='https://a.example/x'\nglobal.constraint='/c.txt'\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: completed(listing))
    assert engine.pip_settings() == {"find-links": "/w", "index-url": "https://a.example/x"}


def test_local_folders_of_pip_are_shown_to_the_builder(tmp_path: Path) -> None:
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    settings = {"extra-index-url": f"file://{tmp_path}/index/simple", "find-links": str(tmp_path / "wheels")}
    assert engine.local_folders(settings) == [tmp_path / "index", tmp_path / "wheels"]
    assert engine.local_folders({"index-url": "https://a.example/simple"}) == []


def test_secrets_name_a_file_that_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"index-url": "https://a.example/x", "cert": str(tmp_path / "missing.pem")}
    monkeypatch.setattr(engine, "pip_settings", lambda: dict(settings))
    options = engine.pip_secrets(tmp_path, mounts=True)
    assert options == ["--secret", f"id=pip,src={tmp_path / 'pip.conf'}"]
    assert (tmp_path / "pip.conf").read_text() == "[global]\nindex-url = https://a.example/x\n"


def test_without_any_engine_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(engine.CheckError, match="install buildah, podman and runc"):
        engine.find_engine(tmp_path)


class Fake:
    """An engine whose only image says `config` of itself."""

    tool = "podman"

    def __init__(self, config: dict[str, Any], size: float) -> None:
        self.answer = json.dumps([{"Config": config, "Size": size * 1e9}])

    def call(self, *arguments: str, **options: Any) -> engine.Completed:
        return completed(self.answer)


def config(**changes: Any) -> dict[str, Any]:
    labels = {f"org.opencontainers.image.{name}": "x" for name in contents.LABELS}
    good = {
        "Labels": labels,
        "User": "10001:10001",
        "Entrypoint": ["stratified-serve"],
        "StopSignal": "SIGTERM",
    }
    return good | changes


EXPECTED = contents.Expected("stratified-serve", 1.2)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"User": "0:0"}, 1.0, "not a number above 0"),
        ({"User": "app"}, 1.0, "not a number above 0"),
        ({"Entrypoint": ["/bin/sh", "-c", "stratified-serve"]}, 1.0, "entry point"),
        ({"StopSignal": "SIGKILL"}, 1.0, "stop signal"),
        ({"Labels": None}, 1.0, "label title is empty"),
        ({}, 1.3, "above the budget"),
    ],
)
def test_an_image_that_says_something_else_is_refused(
    changes: dict[str, Any], size: float, message: str
) -> None:
    fake: Any = Fake(config(**changes), size)
    with pytest.raises(engine.CheckError, match=message):
        contents.labels_and_size(fake, "image", EXPECTED)


def test_an_image_as_it_must_be_passes() -> None:
    fake: Any = Fake(config(), 1.0)
    assert contents.labels_and_size(fake, "image", EXPECTED).startswith("1.00 GB (at most 1.2)")


def test_every_image_has_a_name_of_its_own_and_a_lock_that_is_there() -> None:
    every = [*images.IMAGES.values(), *images.GPU_IMAGES]
    assert len({image.tag for image in every}) == len(every)
    assert all((images.ROOT / "locks" / image.lock).exists() for image in every)
    assert [image.accelerator for image in every] == ["cpu", "cpu", "cpu", "gpu", "gpu"]


def test_scratch_space_is_removed_unless_it_was_given(tmp_path: Path) -> None:
    with images.scratch_folder(None) as folder:
        (folder / "file").write_text("x")
    assert not folder.exists()
    with images.scratch_folder(tmp_path / "kept") as folder:
        assert folder.is_dir()
    assert folder.is_dir()


def test_the_smoke_sweep_is_a_valid_configuration(tmp_path: Path) -> None:
    volume = smoke.Volume(tmp_path)
    volume.make()
    smoke.write_input(volume, ("none",))
    loaded = RunConfig.model_validate(yaml.safe_load((tmp_path / "input" / "sweep.yaml").read_text()))
    assert loaded.hardware.processes == 2
    assert len(list((tmp_path / "input").glob("*.jsonl"))) == 6


def test_a_sweep_without_a_record_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(engine.CheckError, match=r"results\.json was not written"):
        smoke.Volume(tmp_path).status()


def test_waiting_has_an_end() -> None:
    assert smoke.wait_for("this", lambda: True, seconds=1) < 1
    with pytest.raises(engine.CheckError, match="that did not come"):
        smoke.wait_for("that", lambda: False, seconds=0.1)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a > 1 and b == 0", "a > bool 1 and b == bool 0"),
        ("absent(up == 1)", "(up == bool 1)"),
        ('a{b=~"c", d!="e"} >= 2', 'a{b=~"c", d!="e"} >= bool 2'),
    ],
)
def test_an_alerts_condition_becomes_a_value(expression: str, expected: str) -> None:
    assert queries.always_answering(expression) == expected


def test_a_panels_query_is_filled_as_grafana_would() -> None:
    asked = 'rate(a{instance=~"$instance"}[$__rate_interval])'
    assert queries.filled(asked) == 'rate(a{instance=~".*"}[15s])'


def test_every_rule_and_panel_is_asked() -> None:
    origins = [query.origin for query in queries.all_queries()]
    assert sum(origin.startswith(("alert", "recorded")) for origin in origins) == len(queries.rules())
    assert any(origin.startswith("training.json") for origin in origins)
    assert not any("$" in query.expression for query in queries.all_queries())


BUILT = {"components": [{"name": "Some_Thing", "version": "1.0"}, {"name": "torch", "version": "2.0"}]}


class Inside(Fake):
    """An image that holds distributions and one Debian package."""

    def __init__(self, distributions: list[tuple[str, str]]) -> None:
        super().__init__({}, 1.0)
        self.found = distributions

    def run_hardened(self, image: str, *arguments: str, options: Any = ()) -> engine.Completed:
        if "dpkg-query" in options:
            return completed("libc6 2.36\n")
        return completed(json.dumps(self.found))


def write_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> engine.Completed:
        Path(command[command.index("-o") + 1]).write_text(json.dumps(BUILT))
        return completed("")

    monkeypatch.setattr(contents, "beside", lambda tool: tool)
    monkeypatch.setattr(subprocess, "run", run)


def test_a_bill_of_materials_holds_what_the_image_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bill(monkeypatch)
    inside: Any = Inside([("some-thing", "1.0"), ("torch", "2.0+cpu")])
    line = contents.bill_of_materials(inside, "image", Path("a.lock"), tmp_path / "bills" / "a.json")
    assert "2 distributions and 1 packages" in line
    written = json.loads((tmp_path / "bills" / "a.json").read_text())["components"]
    assert written[-1]["purl"] == "pkg:deb/debian/libc6@2.36"


def test_an_image_that_holds_something_else_than_its_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bill(monkeypatch)
    inside: Any = Inside([("some-thing", "1.1"), ("torch", "2.0")])
    with pytest.raises(engine.CheckError, match=r"a\.lock and the image differ in .*some-thing.*1\.0"):
        contents.bill_of_materials(inside, "image", Path("a.lock"), tmp_path / "a.json")


@pytest.mark.parametrize(
    ("dependencies", "expected"),
    [
        ([{"name": "a", "skip_reason": "not found"}], "finds data for none of 1"),
        ([{"name": "a", "vulns": []}, {"name": "b", "skip_reason": "x"}], "knows no weakness of 1 of 2"),
    ],
)
def test_an_audit_says_how_much_it_knows(
    dependencies: list[Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "beside", lambda tool: tool)
    answer = completed(json.dumps({"dependencies": dependencies}))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: answer)
    assert expected in contents.audit([])


def test_a_known_weakness_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "beside", lambda tool: tool)
    answer = completed(json.dumps({"dependencies": [{"name": "a", "vulns": [{"id": "CVE-1"}]}]}))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: answer)
    with pytest.raises(engine.CheckError, match="CVE-1"):
        contents.audit([])


def test_without_its_tools_a_check_says_that_it_covers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "beside", lambda tool: None)
    fake: Any = Fake({}, 1.0)
    assert contents.audit([]).startswith("not covered")
    assert contents.bill_of_materials(fake, "image", Path("a"), Path("b")).startswith("not covered")


def test_a_build_context_holds_what_the_ignore_file_lets_in_and_no_caches(tmp_path: Path) -> None:
    context = images.copy_context(tmp_path)
    assert (context / "serving" / "app.py").is_file()
    assert (context / "locks" / "install.sh").is_file()
    assert not (context / "tests").exists()
    assert not list(context.rglob("__pycache__"))
