"""GPT-2: causal, norms first, no frame and no padding token of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, GPT2Config, GPT2Model

from stratified_models import BackboneError, StratifiedForSequenceClassification, load_tokenizer
from stratified_models.backbones.gpt2 import ContentMean, LastToken
from stratified_models.hooks import BlockHooks, Strata
from stratified_models.registry import FAMILIES
from stratified_models.sources import quiet
from stratified_models.testing import tiny_backbone, tiny_model
from stratified_models.variants.attention import AttentionBlock
from stratified_models.variants.layers import LayersBlock
from tests.stratified_models.conftest import largest, move_

GPT2 = FAMILIES["gpt2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("gpt2"), family="gpt2", layers=3)


def moved(folder: Path, variant: str, **options: Any) -> StratifiedForSequenceClassification:
    return move_(tiny_model(folder, variant=variant, **options)).prepare_for_inference()


def test_the_end_of_text_token_pads_and_is_still_content(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, max_length=32)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.padding_side == "right"
    model = moved(folder, "routing")
    assert model.config.special_token_ids == []
    assert model.config.pad_token_id == tokenizer.eos_token_id
    ids = torch.tensor([[*tokenizer("good film")["input_ids"], tokenizer.eos_token_id]])
    assert bool(model.encode(ids).content.all())


def test_its_own_padding_token_is_kept(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder, max_length=32)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(5)
    tokenizer.save_pretrained(str(tmp_path))
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": 5}))
    assert load_tokenizer(tmp_path, max_length=32).pad_token_id == 5


def test_an_empty_text_is_one_position_of_padding(folder: Path) -> None:
    model = moved(folder, "moe")
    empty = torch.zeros(1, 0, dtype=torch.long)
    padded = torch.zeros(1, 6, dtype=torch.long)
    with torch.no_grad():
        alone = model(empty, torch.zeros(1, 0, dtype=torch.long))
        assert bool(torch.isfinite(alone.logits).all())
        assert largest(alone.logits, model(padded, padded).logits) < 1e-6


@pytest.mark.parametrize("variant", ["attention", "moe"])
def test_hidden_states_are_causal_given_the_strata(folder: Path, variant: str) -> None:
    # The row's mean moves the strata, so causality holds for a block whose strata are given.
    model = moved(folder, variant)
    hooks, block = model._hooks(2), model.family.block(model.backbone, 2)
    x, strata = torch.randn(1, 7, 32), torch.softmax(torch.randn(1, 7, 8), -1)
    valid = torch.ones(1, 7, dtype=torch.bool)
    other = x.clone()
    other[:, 5:] = 0

    def run(tokens: Tensor) -> Tensor:
        out, _ = GPT2.run_block(block, hooks, tokens, GPT2.mask(valid), Strata(strata, strata, valid))
        return out

    with torch.no_grad():
        one, two = run(x), run(other)
    assert largest(one[:, :5], two[:, :5]) < 1e-5
    assert largest(one[:, 5:], two[:, 5:]) > 1e-3


def test_mask_hears_itself_and_what_is_valid_before() -> None:
    mask = GPT2.mask(torch.tensor([[True, True, False], [False, False, False]]))
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert torch.equal(mask[1, 0], torch.eye(3, dtype=torch.bool))


def test_film_is_applied_to_the_normalised_tokens_and_depth_to_the_branch(folder: Path) -> None:
    """x ← x + 2σ(p·a)·f(LN(x) ⊙ (1 + pΓ) + pΘ), written out for the feed-forward sub-layer."""
    torch.manual_seed(0)
    with quiet():
        encoder = AutoModel.from_pretrained(folder).train(False)
    block = GPT2.block(encoder, 0)
    hooks = LayersBlock(width=32, strata=4)
    for parameter in hooks.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, p = torch.randn(2, 5, 32), torch.softmax(torch.randn(2, 5, 4), -1)
    valid = torch.ones(2, 5, dtype=torch.bool)

    def branch(x: Tensor, s: int, norm: torch.nn.Module) -> Tensor:
        tokens: Tensor = norm(x) * (1 + p @ hooks.gain[s]) + p @ hooks.shift[s]
        return tokens

    def depth(s: int) -> Tensor:
        return 2 * torch.sigmoid(p @ hooks.depths[s])[..., None]

    with torch.no_grad():
        found, _ = GPT2.run_block(block, hooks, x, GPT2.mask(valid), Strata(p, p, valid))
        tokens = branch(x, 0, block.ln_1)
        expected = x + depth(0) * block.attn(tokens, attention_mask=GPT2.mask(valid))[0]
        expected = expected + depth(1) * block.mlp(branch(expected, 1, block.ln_2))
    assert largest(found, expected) < 1e-5


def test_states_are_mixed_before_the_last_norm(folder: Path) -> None:
    model = moved(folder, "layers")
    ids = torch.tensor([[7, 8, 9, 10]])
    with torch.no_grad():
        hidden = model.encode(ids).hidden
    norm = model.backbone.get_submodule("ln_f")
    plain = (hidden - norm.get_parameter("bias")) / norm.get_parameter("weight")
    assert largest(plain.mean(-1), torch.zeros(())) < 1e-4  # what comes out is a norm's output
    assert largest(plain.var(-1, unbiased=False), torch.ones(())) < 1e-3


def test_the_gate_reads_the_stream_normalised(folder: Path) -> None:
    read = GPT2.gate_input(100 * torch.randn(2, 3, 32) + 7)
    assert largest(read.mean(-1), torch.zeros(())) < 1e-4
    assert largest(read.std(-1, unbiased=False), torch.ones(())) < 1e-3


@pytest.mark.parametrize(
    "setting", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]
)
def test_other_scales_of_attention_keep_the_library_s_forward(setting: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16, "vocab_size": 40}
    encoder = GPT2Model(GPT2Config(**sizes, initializer_range=0.3, **setting)).train(False)
    ids, valid = torch.randint(40, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        expected = encoder(ids).last_hidden_state
        hidden = GPT2.embed(encoder, ids, None)
        for index in range(2):
            arguments = (BlockHooks(), hidden, GPT2.mask(valid), Strata.nothing(valid))
            hidden, _ = GPT2.run_block(GPT2.block(encoder, index), *arguments)
        assert largest(GPT2.finish(encoder, hidden), expected) < 1e-5


def test_invariant_12_lengthened_heads_are_the_explicit_scores_under_a_causal_mask() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 9}
    block = GPT2.block(GPT2Model(GPT2Config(**sizes, initializer_range=0.5)).double().train(False), 0)
    hooks = AttentionBlock(width=16, heads=2, widths=(1, 2, 3)).double()
    for parameter in hooks.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.nn.init.zeros_(hooks.up)
    hooks.column.zero_()
    x, p = torch.randn(2, 6, 16).double(), torch.softmax(torch.randn(2, 6, 3).double(), -1)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    mask = GPT2.mask(valid)
    q, k, v = (t.view(2, 6, 2, 8).transpose(1, 2) for t in block.attn.c_attn(x).chunk(3, -1))
    heat = torch.exp(torch.einsum("btk,kh->bht", p, hooks.temperature))[..., None]
    scores = heat * (q @ k.transpose(-1, -2)) / 8**0.5
    scores = scores + torch.einsum("bik,hkl,bjl->bhij", p, hooks.affinity, p)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    expected = block.attn.c_proj((weights @ v).transpose(1, 2).flatten(2))
    found = GPT2.attention(block, x, x, mask, hooks, Strata(p, p, valid))
    assert largest(found, expected) < 1e-13


def test_experts_are_the_transposed_products(folder: Path) -> None:
    model = tiny_model(folder, variant="moe")
    index = model.variant.replaces_ffn[0]
    with quiet():
        mlp = AutoModel.from_pretrained(folder).h[index].mlp
    experts = model.variant.blocks[str(index)].get_submodule("experts")
    for number in range(model.config.num_experts):
        assert torch.equal(experts.get_parameter("up_proj")[number], mlp.c_fc.weight.T)
        assert torch.equal(experts.get_parameter("down_proj")[number], mlp.c_proj.weight.T)


def test_pooling() -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    content = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert torch.equal(
        ContentMean()(hidden, content), torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0)])
    )
    assert torch.equal(LastToken()(hidden, content), torch.stack([hidden[0, 1], hidden[1, 3]]))
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert torch.equal(ContentMean()(hidden[:1], nothing), torch.zeros(1, 3))
    assert bool(torch.isfinite(LastToken()(hidden[:1], nothing)).all())


def test_last_and_mean_are_configurations(folder: Path) -> None:
    assert isinstance(tiny_model(folder).pooler, ContentMean)
    assert isinstance(tiny_model(folder, pooling="last").pooler, LastToken)


def test_cross_attention_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"add_cross_attention=True.*choose another"):
        GPT2.check(GPT2Config(add_cross_attention=True))


def test_inner_width_may_be_left_open() -> None:
    assert GPT2.ffn_width(GPT2Config(n_embd=8, n_head=2)) == 32
    assert GPT2.ffn_width(GPT2Config(n_embd=8, n_head=2, n_inner=20)) == 20
