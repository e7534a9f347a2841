"""Shared by all packages: one tiny bundle that was really exported, for exporting takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from stratified_models.bundle import Bundle, load_model, read_bundle, write_bundle

QUALITY = {"per_domain": {"imdb": {"loss_points": 0.25}}}


def moved_bundle(directory: Path, variant: str) -> Bundle:
    """A bundle of three blocks whose zero-initialised parts were moved away from zero, with a table of
    words and probes of a block."""
    import torch

    from stratified_models import load_tokenizer
    from stratified_models.registry import probes_of, words_of
    from stratified_models.testing import tiny_backbone, tiny_bundle
    from tests.stratified_models.conftest import move_

    tiny_backbone(directory / "backbone", layers=3)
    bundle = tiny_bundle(directory, variant=variant)
    tokenizer = load_tokenizer(bundle.path, max_length=64)
    model = move_(load_model(bundle))
    config, generator = model.config, torch.Generator().manual_seed(2)
    config.domain_words, config.domain_pairs, config.domain_blocks = True, 32, 1
    words, probes = words_of(config), probes_of(config)
    assert words is not None
    assert probes is not None
    model.domain_words, model.domain_probes = words, probes
    for buffer in (words.table, probes.weight, probes.bias):
        buffer.normal_(generator=generator)
    return write_bundle(directory, model=model, tokenizer=tokenizer, manifest=bundle.manifest, card="# tiny")


def pretend_vnni(patch: pytest.MonkeyPatch, answer: bool = True) -> None:
    """As on a processor that adds products of eight bits exactly, or on one that does not."""
    for module in ("openvino_runtime", "openvino_int8"):
        patch.setattr(f"stratified_models.{module}.adds_int8_exactly", lambda: answer)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A routing bundle with its graph in fp32 and both int8 files; tests copy it before they change it."""
    from stratified_models.onnx_export import export_onnx

    bundle = moved_bundle(tmp_path_factory.mktemp("exported") / "routing", "routing")
    export_onnx(bundle.path, quantize="int8", measure=lambda fp32, int8: QUALITY)
    return read_bundle(bundle.path)
