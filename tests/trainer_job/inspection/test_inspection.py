"""The inspection: figures on made-up readings whose answer is known, and the command on a tiny bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stratified_models.bundle import load_model, read_bundle
from stratified_models.loading import load_pretrained
from stratified_models.testing import tiny_backbone, tiny_bundle
from stratified_models.tokenizer import load_tokenizer
from trainer_job.__main__ import main
from trainer_job.errors import DataError
from trainer_job.inspection import figures
from trainer_job.inspection.command import load_before
from trainer_job.inspection.drawing import draw
from trainer_job.inspection.reading import Reading, pooled_rows, read_model
from trainer_job.inspection.texts import Texts, read_texts

DOMAINS, LABELS = ("imdb", "tweets"), ("negative", "neutral", "positive")
WORDS = [
    "good",
    "bad",
    "film",
    "book",
    "story",
    "price",
    "day",
    "people",
    "love",
    "hate",
    "time",
    "work",
    "buy",
    "read",
]


def made_up(tokens: int = 900, *, strata: int | None = 3, seed: int = 0) -> Reading:
    """Stratum k is a blob of k + 2 dimensions; the domain is the stratum's parity, the label is chance."""
    rng = np.random.default_rng(seed)
    owner = np.arange(tokens) % 3
    points = rng.standard_normal((tokens, 8)) * (np.arange(8) < (owner + 2)[:, None])
    points += 50 * owner[:, None]
    return Reading(
        words=[f"w{k}" for k in owner],
        row=np.arange(tokens) // 3 * 3 + owner,
        states=[rng.standard_normal((tokens, 4)), points],
        strata=None if strata is None else np.eye(3)[owner],
        routing=[np.full((tokens, 4), 0.25)],
        chosen=[np.tile([1, 3], (tokens, 1))],
        labels=rng.integers(0, 3, tokens),
        domains=owner % 2,
        rows=pooled_rows(points.astype(np.float32), np.full(tokens, 10), owner % 2),
        domain_logits=np.zeros((tokens, 2), np.float32),
        geometry=np.full(tokens, np.nan),
        tokens_read=tokens,
    )


def test_strata_that_are_domains_say_so_and_labels_do_not() -> None:
    found = figures.strata_figures(made_up(), rounds=50)
    assert found is not None
    assert found["effective"] == pytest.approx(3)
    assert found["effective_per_token"] == pytest.approx(1)
    domain, label = found["information"]["domain"], found["information"]["label"]
    assert domain["observed"] == pytest.approx(domain["of"])
    assert domain["p"] < 0.05 < label["p"]


def test_unknown_labels_tell_nothing() -> None:
    reading = made_up()
    reading.labels[:] = -1
    found = figures.strata_figures(reading, rounds=5)
    assert found is not None
    assert found["information"]["label"] is None


def test_dimensions_of_blobs_are_found_and_small_strata_left_out() -> None:
    found = figures.dimension_figures(made_up(), layer=1, ranks=(4, 8, 12), rounds=30)
    assert [entry["stratum"] for entry in found] == [None, 0, 1, 2]
    for entry, true in zip(found[1:], (2, 3, 4), strict=True):
        assert entry["two_nn"]["low"] < true + 0.6
        assert entry["two_nn"]["high"] > true - 0.6
        assert entry["participation_ratio"]["value"] == pytest.approx(true, abs=0.3)
    assert figures.dimension_figures(made_up(90), layer=1, ranks=(4, 8, 12))[1]["two_nn"] is None


def test_volume_figures_stand_beside_their_null() -> None:
    found = figures.volume_figures(made_up(), layer=1, queries=60)
    assert found is not None
    assert len(found["layers"]) == 2
    assert found["layers"][0]["rejects_manifold"] < 0.2  # a Gaussian
    assert [entry["stratum"] for entry in found["strata"]] == [0, 1, 2]
    assert sum(entry["tokens"] for entry in found["strata"]) == 60
    assert figures.volume_figures(made_up(300), layer=1) is None


def test_words_belong_to_the_stratum_that_holds_them() -> None:
    found = figures.example_figures(made_up(), each=2)
    assert found is not None
    assert [entry["words"][0]["word"] for entry in found] == ["w0", "w1", "w2"]
    assert found[0]["words"][0]["lift"] == pytest.approx(3, rel=0.05)


def test_loads_are_of_those_who_answered_and_uniform_routing_has_the_largest_entropy() -> None:
    (block,) = figures.expert_figures(made_up())
    assert block["entropy_per_token"] == pytest.approx(block["most"])
    assert block["load"] == [0, 0.5, 0, 0.5]


def test_without_strata_the_rest_remains() -> None:
    reading = made_up(strata=None)
    assert figures.strata_figures(reading) is None
    assert figures.example_figures(reading) is None
    assert len(figures.dimension_figures(reading, layer=1, ranks=(), rounds=3)) == 1
    assert figures.projection_figures(reading, layer=1)["stratum"] is None


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one\u0085two\u2028three", "domain": "imdb"}\r\n\n{"text": "b"}\n', "utf-8")
    found = read_texts(path, labels=LABELS, domains=DOMAINS)
    assert found.texts == ["one\u0085two\u2028three", "b"]
    assert found.domains.tolist() == [0, -1]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n', "utf-8-sig")
    assert read_texts(path, labels=LABELS, domains=DOMAINS).texts == ["one", "two"]


@pytest.mark.parametrize("text", ["null", "7", '["a"]'])
def test_a_text_that_is_no_string_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "one"}}\n{{"text": {text}}}\n', "utf-8")
    with pytest.raises(DataError, match=rf"t.jsonl:2: `text` is {re.escape(text)}, no string; write it"):
        read_texts(path, labels=LABELS, domains=DOMAINS)


def write_texts(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(0)
    lines = [
        {
            "text": " ".join(rng.choice(WORDS, size=16)),
            "label": LABELS[place % 3],
            "domain": DOMAINS[place % 2],
        }
        for place in range(rows)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), variant="moe").path


def test_reading_takes_tokens_evenly_and_knows_their_texts(bundle: Path, tmp_path: Path) -> None:
    model = load_model(read_bundle(bundle))
    tokenizer = load_tokenizer(bundle, max_length=64)
    texts = read_texts(write_texts(tmp_path / "t.jsonl"), labels=LABELS, domains=DOMAINS)
    found = read_model(model, tokenizer, texts, tokens=240)
    asked = tokenizer(texts.texts[:1], return_tensors="pt")
    with torch.inference_mode():
        assert found.geometry[0] == pytest.approx(float(model(**asked).geometry[0]), abs=1e-5)
    assert len(found.row) == 240
    assert np.bincount(found.row).tolist() == [4] * 60
    assert found.tokens_read == 60 * 16
    assert found.strata is not None
    assert all(word in texts.texts[row] for word, row in zip(found.words, found.row, strict=True))
    assert len(found.states) == 7
    assert len(found.routing) == 2


def test_expert_loads_are_the_model_s_own(bundle: Path) -> None:
    model = load_model(read_bundle(bundle))
    tokenizer = load_tokenizer(bundle, max_length=64)
    for block in model.variant.blocks.values():
        block.get_buffer("bias").copy_(torch.tensor([0.0, -1.0, 0.0, -1.0]))  # never one of these two
    texts = Texts(["good film", "a bad book"], np.zeros(2), np.zeros(2), np.array(["", ""]))
    loads = [entry["load"] for entry in figures.expert_figures(read_model(model, tokenizer, texts, tokens=9))]
    rows = tokenizer(texts.texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        own = [trace.load for trace in model.encode(**rows).traces]
    assert loads == [(load / load.sum()).tolist() for load in own]
    assert loads == [[0.5, 0, 0.5, 0]] * 2


@pytest.mark.parametrize("line", ["no json", '{"label": "x"}', "[]"])
def test_lines_without_text_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=r"t.jsonl:1: no JSON object with `text`"):
        read_texts(path, labels=LABELS, domains=DOMAINS)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no texts"):
        read_texts(path, labels=LABELS, domains=DOMAINS)


def test_the_command_writes_a_page_and_its_figures(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "VOLUMES", {"smallest": 5, "largest": 60, "window": 8})
    texts, out = write_texts(tmp_path / "t.jsonl"), tmp_path / "out"
    line = ["inspect", str(bundle), "--data", str(texts), "--tokens", "480", "--out", str(out)]
    assert main([*line, "--text", "A good film & a bad book."]) == 0
    assert "inspect.html" in capsys.readouterr().out
    record: dict[str, Any] = json.loads((out / "inspect.json").read_text(encoding="utf-8"))
    assert record["data"] == {"source": "t.jsonl", "texts": 60, "tokens_read": 960, "tokens": 480}
    assert len(record["strata"]["occupancy"]) == 8
    assert record["volume"] is not None
    assert record["saliency"][0]["label"] in LABELS
    page = (out / "inspect.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    for part in ("Use", "Dimension", "Manifold", "Words", "Projection", "Experts", "Saliency"):
        assert f"<h2>{part}" in page


def test_a_model_without_strata_has_a_page_too(tmp_path: Path) -> None:
    plain = tiny_bundle(tmp_path / "none", variant="none").path
    texts = write_texts(tmp_path / "t.jsonl", rows=30)
    assert main(["inspect", str(plain), "--data", str(texts), "--tokens", "100"]) == 0
    page = (plain / "inspect" / "inspect.html").read_text(encoding="utf-8")
    assert "has no strata" in page
    assert "Too few tokens" in page


def test_before_and_after_stand_in_one_plot(tmp_path: Path) -> None:
    reading = made_up()
    volume = figures.volume_figures(reading, layer=1, queries=30)
    record: dict[str, Any] = {"strata": None, "dimension": [], "volume": volume, "volume_before": volume}
    projection = figures.projection_figures(made_up(strata=None), layer=1)
    record |= {"projection": projection, "domains": DOMAINS, "labels": LABELS}
    assert set(draw(record)) == {"volume", "projection"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "gone.jsonl"], 3, "gone.jsonl: no such file"),
        (["--data", "gone"], 2, "gone"),
        (["--data", "t.jsonl", "--tokens", "0"], 2, "--tokens 0"),
        (["--data", "t.jsonl", "--set", "seed=1"], 2, "--set seed=1: t.jsonl is no configuration"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, message: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle), *arguments]) == code
    assert message in capsys.readouterr().err


def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path), "--data", "t.jsonl"]) == 3
    assert "manifest.json" in capsys.readouterr().err


def test_data_of_a_configuration_and_the_backbone_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.trainer_job.tiny import make_tiny

    tiny = make_tiny(tmp_path / "tiny")
    model = tiny_bundle(tmp_path / "model", variant="layers", domains=("films", "shop"))
    monkeypatch.setattr(figures, "VOLUMES", {"smallest": 5, "largest": 60, "window": 8})
    path = model.path / "manifest.json"
    manifest = json.loads(path.read_text())
    backbone = {"name": str(tiny.root / "backbone"), "sha256": backbone_sha256(tiny.root / "backbone")}
    path.write_text(json.dumps({**manifest, "backbone": backbone}))
    out = tmp_path / "out"
    line = ["inspect", str(model.path), "--data", str(tiny.yaml(tmp_path / "sweep")), "--out", str(out)]
    assert main([*line, "--tokens", "400", "--before"]) == 0
    record = json.loads((out / "inspect.json").read_text(encoding="utf-8"))
    assert record["volume_before"]["layers"][0]["layer"] == 0
    assert record["strata"]["information"]["domain"] is not None
    path.write_text(json.dumps({**manifest, "backbone": {**backbone, "name": "/no/such/backbone"}}))
    assert main([*line, "--tokens", "400", "--before"]) == 3


def backbone_sha256(folder: Path, **options: Any) -> str:
    """As the manifest of a model that is trained from it says."""
    options = {"variant": "none", "labels": LABELS, "domains": DOMAINS, **options}
    ids = [list(range(len(LABELS)))] * len(DOMAINS)
    _, report = load_pretrained(folder, domain_labels=ids, max_length=64, gate_dim=16, seed=0, **options)
    return report.backbone_sha256


def test_a_backbone_that_the_model_was_not_trained_from_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_backbone(tmp_path / "other", seed=1)
    found = tiny_bundle(tmp_path / "model")
    sha = backbone_sha256(tmp_path / "model" / "backbone")
    path = found.path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "backbone": {"name": str(other), "sha256": sha}}))
    texts = write_texts(tmp_path / "t.jsonl")
    assert main(["inspect", str(found.path), "--data", str(texts), "--before"]) == 3
    said = capsys.readouterr().err
    assert f"has sha256 {backbone_sha256(other)[:12]}…, and this model was trained from {sha[:12]}…" in said
    assert not (found.path / "inspect").exists()
    path.write_text(json.dumps({**manifest, "backbone": {"name": str(other), "sha256": ""}}))
    bundle = read_bundle(found.path)
    assert not load_before(bundle, load_model(bundle).config).training  # nothing to compare with


def test_a_converted_backbone_is_converted_again(tmp_path: Path) -> None:
    checkpoint = tiny_backbone(tmp_path / "bert", family="bert")
    found = tiny_bundle(tmp_path / "model")  # on DistilBERT
    path = found.path / "manifest.json"
    sha = backbone_sha256(checkpoint, family="distilbert")
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "backbone": {"name": str(checkpoint), "sha256": sha}})
    )
    bundle = read_bundle(found.path)
    assert load_before(bundle, load_model(bundle).config).family.name == "distilbert"
