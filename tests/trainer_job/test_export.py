"""The export command: where rows come from, what is measured, what is refused, what lands in the bundle."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stratified_models import ExportError, onnx_export, openvino_int8
from stratified_models.bundle import Bundle, copy_bundle, read_bundle
from stratified_models.manifest import Export
from stratified_models.onnx_export import OnnxExport
from stratified_models.testing import tiny_bundle
from tests.conftest import pretend_vnni
from trainer_job.__main__ import main
from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError, DataError, ExportRefused
from trainer_job.export import (
    BATCH_TOKENS,
    Rows,
    _batches,
    accept,
    compare,
    export_bundle,
    find_rows,
    print_exports,
    recorded_config,
    rows_from_file,
    sample_of_lengths,
)

RECORDS = [
    {"text": "a great film", "label": "positive", "domain": "imdb"},
    {"text": "what a waste of two hours " * 9, "label": "negative", "domain": "imdb"},
    {"text": "it arrived on tuesday", "label": "neutral", "domain": "tweets"},
    {"text": "I love this phone", "label": "positive", "domain": "tweets"},
]


@pytest.fixture
def bundle(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A copy of the exported bundle, in which exporting again takes the graph that is already there."""
    graph = exported.path / "model.onnx"
    monkeypatch.setattr(onnx_export, "_write_graph", lambda model, path: shutil.copyfile(graph, path))
    return copy_bundle(exported.path, tmp_path / "results" / "routing")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS) + "\n\n", encoding="utf-8")
    return path


def test_the_command_writes_measures_and_prints(
    bundle: Bundle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(bundle.path), "--quantize", "int8", "--data", str(data), "--max-loss", "100"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "model.onnx: " in said
    assert "imdb: accuracy " in said
    exports = read_bundle(bundle.path).manifest.exports
    for name, runtime in (("model.int8.onnx", "onnx"), ("model.int8.openvino.onnx", "openvino")):
        assert (exports[name].format, exports[name].precision) == (runtime, "int8")
        quality = exports[name].quality
        assert quality["rows"] == 4
        assert quality["source"] == "rows.jsonl"
        assert quality["max_loss"] == 100
        assert quality["per_domain"]["tweets"]["n"] == 2
        assert set(quality["worst_domain"]) == {"name", "loss_points"}


def test_without_nncf_the_command_says_what_is_left_out(
    bundle: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openvino_int8, "find_spec", lambda name: None if name == "nncf" else object())
    line = ["export", str(bundle.path), "--quantize", "int8", "--data", str(data), "--max-loss", "100"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "nncf is not installed, so model.int8.openvino.onnx is not written; pip install" in said
    assert f"{bundle.path / 'model.int8.onnx'}: " in said
    assert f"{bundle.path / 'model.int8.openvino.onnx'}: " not in said


def test_where_sums_overflow_the_command_says_so_and_measures_by_other_means(
    bundle: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("OpenVINO computes other sums here")

    pretend_vnni(monkeypatch, answer=False)
    monkeypatch.setattr("stratified_models.openvino_int8.OpenvinoModel.__init__", never)
    line = ["export", str(bundle.path), "--quantize", "int8", "--data", str(data), "--max-loss", "100"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "this processor has no VNNI" in said
    assert "and model.int8.onnx is served here" in said
    assert f"{bundle.path / 'model.int8.openvino.onnx'}: " in said
    entry = read_bundle(bundle.path).manifest.exports["model.int8.openvino.onnx"]
    assert 0 < entry.error < 0.2


def test_fp32_alone_needs_no_rows(bundle: Bundle) -> None:
    assert main(["export", str(bundle.path)]) == 0
    exports = read_bundle(bundle.path).manifest.exports
    assert exports["model.onnx"].precision == "fp32"


def test_int8_without_rows_is_refused(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(bundle.path), "--quantize", "int8"]) == 2
    assert "needs validation rows" in capsys.readouterr().err
    assert read_bundle(bundle.path).sha256 == bundle.sha256


def test_the_measured_loss_of_equal_files_is_zero(bundle: Bundle, data: Path) -> None:
    rows = rows_from_file(data, bundle)
    path = bundle.path / "model.onnx"
    found = compare(bundle, path, path, rows)
    assert found["agreement"] == 1.0
    for entry in found["per_domain"].values():
        assert entry["loss_points"] == 0.0
        assert entry["accuracy_fp32"] == entry["accuracy_int8"]
        assert entry["macro_f1_fp32"] == entry["macro_f1_int8"]


def test_accuracy_is_counted_by_hand(bundle: Bundle, data: Path) -> None:
    from stratified_models import load_tokenizer
    from stratified_models.bundle import load_model

    model, tokenizer = load_model(bundle), load_tokenizer(bundle.path, max_length=64)
    rows = rows_from_file(data, bundle)
    hits = []
    for text, label in zip(rows.texts, rows.labels, strict=True):
        batch = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        hits.append(int(model(**batch).logits.argmax()) == label)
    per_domain = compare(bundle, bundle.path / "model.onnx", bundle.path / "model.int8.onnx", rows)[
        "per_domain"
    ]
    assert per_domain["imdb"]["accuracy_fp32"] == sum(hits[:2]) / 2
    assert per_domain["tweets"]["accuracy_fp32"] == sum(hits[2:]) / 2


def quality_of(**losses: float) -> dict[str, Any]:
    return {"per_domain": {name: {"n": 200, "loss_points": loss} for name, loss in losses.items()}}


def test_the_worst_domain_decides() -> None:
    assert accept(quality_of(a=0.5, b=-2.0), 0.5)["worst_domain"] == {"name": "a", "loss_points": 0.5}
    with pytest.raises(
        ExportError, match=r"loses 1\.50 points of accuracy on b \(200 rows, so one row is 0\.50"
    ):
        accept(quality_of(a=0.0, b=1.5), 0.5)


def test_no_loss_is_accepted_against_a_bound_that_is_no_number() -> None:
    with pytest.raises(ExportError, match="above --max-loss nan"):
        accept({"per_domain": {"imdb": {"loss_points": 0.0, "n": 9}}}, float("nan"))


def test_a_refused_file_leaves_the_bundle_as_it_was(bundle: Bundle, data: Path) -> None:
    rows = rows_from_file(data, bundle)
    with pytest.raises(ExportRefused, match="above --max-loss -1000"):
        export_bundle(bundle.path, quantize="int8", rows=rows, max_loss=-1000)
    assert read_bundle(bundle.path).sha256 == bundle.sha256


def test_what_the_models_refuse_ends_the_command_with_1(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(model: object, path: Path) -> None:
        raise ExportError("no graph today; try tomorrow")

    monkeypatch.setattr(onnx_export, "_write_graph", fail)
    assert main(["export", str(bundle.path)]) == 1
    assert "try tomorrow" in capsys.readouterr().err


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        find_rows(tmp_path / "nowhere", data=None, config=None, needed=False)
    with pytest.raises(ConfigError, match=r"has no manifest\.json"):
        export_bundle(tmp_path, quantize=None, rows=None, max_loss=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            "text,label\nhello,positive\n",
            r"row 1: no 'domain'; give the columns text, label, domain",
        ),
        ("x.csv", "text,label,domain\nhello,great,imdb\n", r"label 'great' is none of .* neutral"),
        ("x.tsv", "text\tlabel\tdomain\nhello\tpositive\tyelp\n", r"domain 'yelp' is none of .* tweets"),
        ("x.csv", "text,label,domain\n", "holds no rows"),
        ("x.jsonl", "{broken", "cannot be read"),
        ("x.parquet", "", r"'\.parquet' is not read; give \.jsonl, \.csv or \.tsv"),
    ],
)
def test_wrong_rows_are_refused(
    bundle: Bundle, tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        rows_from_file(path, bundle)


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_rows(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    line = "text,label,domain\ngood,positive,imdb\n" if name == "x.csv" else json.dumps(RECORDS[0])
    path.write_text(line, encoding="utf-8-sig")
    assert rows_from_file(path, bundle).labels == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "data.cache=x"], "--set data.cache=x: there is no --config to override"),
        (["--max-loss", "nan"], "argument --max-loss: 'nan' is no number from 0 to 100"),
        (["--max-loss", "-1"], "argument --max-loss: '-1' is no number from 0 to 100"),
        (["--max-loss", "little"], "argument --max-loss: 'little' is no number from 0 to 100"),
    ],
)
def test_a_wrong_command_line_is_refused(
    bundle: Bundle, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(bundle.path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        rows_from_file(tmp_path / "none.csv", bundle)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Two domains in files, named as the bundle's but in another order."""
    domains: dict[str, Any] = {}
    for domain in ("tweets", "imdb"):
        for split, count in (("train", 12), ("validation", 6), ("test", 6)):
            records = [
                {"text": f"{split} {domain} word {n}", "label": ("negative", "neutral", "positive")[n % 3]}
                for n in range(count)
            ]
            path = tmp_path / f"{domain}-{split}.jsonl"
            path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        names = ["negative", "neutral", "positive"]
        splits = {split: f"{domain}-{split}.jsonl" for split in ("train", "validation", "test")}
        domains[domain] = {
            "source": {"kind": "files", "splits": splits},
            "label_map": {name: name for name in names},
            "labels": names,
        }
    tree = {
        "cache": tmp_path / "cache",
        "data": {"root": tmp_path, "train_samples": None, "domains": domains},
    }
    return RunConfig.model_validate(tree)


def test_rows_of_a_configuration_follow_the_bundles_order(bundle: Bundle, config: RunConfig) -> None:
    rows = find_rows(bundle.path, data=None, config=config, needed=True)
    assert rows is not None
    assert len(rows.texts) == 12
    for text, domain in zip(rows.texts, rows.domains, strict=True):
        assert ("imdb" in text) == (domain == 0)
    assert rows.source.startswith("validation split, corpus ")


def test_the_sweeps_own_configuration_is_found(bundle: Bundle, config: RunConfig) -> None:
    assert recorded_config(bundle.path) is None
    state = bundle.path.parent / ".state"
    state.mkdir()
    record = {"config_hash": "x", "config": config.model_dump(mode="json")}
    (state / "sweep.json").write_text(json.dumps(record), encoding="utf-8")
    assert recorded_config(bundle.path) == config
    rows = find_rows(bundle.path, data=None, config=None, needed=True)
    assert rows is not None
    assert len(rows.texts) == 12
    assert find_rows(bundle.path, data=None, config=None, needed=False) is None


def test_texts_for_parity_span_all_lengths() -> None:
    texts = ["x" * n for n in range(100, 0, -1)]
    found = sample_of_lengths(texts)
    assert (len(found), len(found[0]), len(found[-1])) == (24, 1, 100)
    assert sample_of_lengths(["b", "a"]) == ["b", "a"]


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [7, 300, 2, 512, 60, 61, 62, 600]
    found = list(_batches(lengths))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= BATCH_TOKENS


def test_printing_a_file_without_quality(tmp_path: Path) -> None:
    out = io.StringIO()
    print_exports([OnnxExport(tmp_path / "m", Export("onnx", "fp32", 1e-7, 1.0, 9), 2_000_000, 1e-6)], out)
    assert out.getvalue() == (
        f"{tmp_path / 'm'}: 2.0 MB, logits within 1.0e-07 of the model's, same label on 100.0% of 9 texts\n"
    )


def test_a_bundle_without_texts_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    empty = Rows((), (), (), "nothing")
    with pytest.raises(ConfigError, match="--quantize int8 needs validation rows"):
        export_bundle(bundle.path, quantize="int8", rows=empty, max_loss=1)
