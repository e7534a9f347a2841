"""Every family of encoders under every variant: the invariants, which hold whatever the variants sit on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from stratified_models import (
    BackboneError,
    StratifiedForSequenceClassification,
    load_pretrained,
    load_tokenizer,
)
from stratified_models.backbone import framed_special_ids
from stratified_models.hooks import BlockHooks, Strata
from stratified_models.registry import FAMILIES
from stratified_models.sources import quiet
from stratified_models.testing import tiny_backbone, tiny_model
from stratified_models.tiny import TINY_FAMILIES
from tests.stratified_models.conftest import DOMAINS, TEXTS, VARIANTS, largest, move_

FIELDS = ("logits", "domain_logits", "energy", "geometry", "occupancy")
LAYERS = 3


@dataclass(frozen=True)
class Case:
    """A family's checkpoint with its tokenizer, a batch of texts, one of them empty, and a step's size."""

    family: str
    folder: Path
    tokenizer: PreTrainedTokenizerFast
    batch: dict[str, Tensor]
    rate: float = 2e-3

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {name: self.batch[name] for name in ("input_ids", "attention_mask")}

    @property
    def reference(self) -> PreTrainedModel:
        """The library's own encoder with its own forward."""
        with quiet():
            model: PreTrainedModel = AutoModel.from_pretrained(self.folder)
        model.eval()  # type: ignore[no-untyped-call]  # untyped in transformers
        return model

    def model(self, variant: str, **options: Any) -> StratifiedForSequenceClassification:
        return tiny_model(self.folder, variant=variant, domains=DOMAINS, **options)


@pytest.fixture(scope="module", params=TINY_FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tiny_backbone(tmp_path_factory.mktemp("tiny"), family=request.param, layers=LAYERS)
    tokenizer = load_tokenizer(folder, max_length=64)
    rows = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    batch = {
        "input_ids": rows["input_ids"],
        "attention_mask": rows["attention_mask"],
        "labels": torch.tensor([2, 2, 0, 1, 1, 2, 1, 1]),
        "domain_id": torch.tensor([0, 2, 0, -1, 2, 2, 1, -1]),
    }
    return Case(request.param, folder, tokenizer, batch)


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], StratifiedForSequenceClassification]:
    return {}


@pytest.fixture(params=VARIANTS)
def moved(
    request: pytest.FixtureRequest, case: Case, kept: dict[tuple[str, str], Any]
) -> StratifiedForSequenceClassification:
    """A model whose zero-initialised parts are away from zero; read only."""
    key = (case.family, request.param)
    if key not in kept:
        kept[key] = move_(case.model(request.param)).prepare_for_inference()
    model: StratifiedForSequenceClassification = kept[key]
    return model


HEADS = {  # ours: theirs; BERT's pooler is part of its checkpoint
    "distilbert": {"pooler.pre_classifier": "pre_classifier", "classifier": "classifier"},
    "bert": {"classifier": "classifier"},
    "roberta": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
    "gpt2": {"classifier": "score"},
}


@torch.no_grad()
def adopt_head_(model: StratifiedForSequenceClassification, head: PreTrainedModel) -> None:
    """Copy the family's own classification head."""
    for ours, theirs in HEADS[model.family.name].items():
        own, source = model.get_submodule(ours), head.get_submodule(theirs).state_dict()
        for name, parameter in own.named_parameters():
            parameter.copy_(source.get(name, torch.zeros_like(parameter)))  # GPT-2's has no bias


@pytest.mark.parametrize("variant", VARIANTS)
def test_starts_as_the_library_s_own_encoder_and_classifier(case: Case, variant: str) -> None:
    model = case.model(variant, pooling="last" if case.family == "gpt2" else None).prepare_for_inference()
    with quiet():
        head = AutoModelForSequenceClassification.from_pretrained(case.folder, num_labels=3).eval()
    adopt_head_(model, head)
    head.config.pad_token_id = case.tokenizer.pad_token_id
    valid = case.inputs["attention_mask"].bool()
    rows = valid.any(-1)  # an empty text of GPT-2 has nothing to compare
    with torch.no_grad():
        hidden = model.encode(case.inputs["input_ids"], case.inputs["attention_mask"]).hidden
        expected = case.reference(**case.inputs).last_hidden_state
        assert largest(hidden[valid], expected[valid]) < 1e-5
        assert largest(model(**case.inputs).logits[rows], head(**case.inputs).logits[rows]) < 5e-6


def test_invariant_19_the_walk_is_the_library_s_forward(case: Case) -> None:
    encoder, family = case.reference, FAMILIES[case.family]
    valid = case.inputs["attention_mask"].bool()
    with torch.no_grad():
        states = encoder(**case.inputs, output_hidden_states=True).hidden_states
        hidden = family.embed(encoder, case.inputs["input_ids"], None)
        mask, hooks, strata = family.mask(valid), BlockHooks(), Strata.nothing(valid)
        for index in range(LAYERS):
            assert largest(hidden[valid], states[index][valid]) == 0
            hidden, trace = family.run_block(family.block(encoder, index), hooks, hidden, mask, strata)
            assert trace is None
        assert largest(family.finish(encoder, hidden)[valid], states[-1][valid]) == 0


def test_word_embeddings_may_be_given_instead_of_ids(case: Case) -> None:
    encoder, family = case.reference, FAMILIES[case.family]
    ids = case.inputs["input_ids"]
    words = encoder.get_input_embeddings()(ids)
    valid = case.inputs["attention_mask"].bool()
    by_id, by_word = family.embed(encoder, ids, None), family.embed(encoder, ids, words)
    assert largest(by_id[valid], by_word[valid]) < 1e-6


def test_invariant_03_padding_changes_nothing(case: Case, moved: StratifiedForSequenceClassification) -> None:
    pad = {"input_ids": case.tokenizer.pad_token_id, "attention_mask": 0}
    wider = {name: nn.functional.pad(case.inputs[name], (0, 24), value=pad[name]) for name in pad}
    with torch.no_grad():
        one, two = moved(**case.inputs), moved(**wider)
    for field in FIELDS:
        assert field not in one or largest(one[field], two[field]) < 2e-6, field


def test_invariant_04_a_row_alone_is_as_in_its_batch(
    case: Case, moved: StratifiedForSequenceClassification
) -> None:
    with torch.no_grad():
        together = moved(**case.inputs)
        for row, text in enumerate(TEXTS):
            alone = moved(**case.tokenizer(text, return_tensors="pt"))
            for field in FIELDS:
                same = field not in alone or largest(alone[field][0], together[field][row]) < 1e-5
                assert same, (text, field)


def test_invariant_06_posteriors_sum_to_one_and_stay_finite(
    case: Case, moved: StratifiedForSequenceClassification
) -> None:
    with torch.no_grad():
        output = moved(**case.inputs, domain_id=case.batch["domain_id"])
    assert all(bool(torch.isfinite(value).all()) for value in output.values())
    if output.strata is not None:
        assert largest(output.strata.sum(-1), torch.ones(())) < 1e-5


def test_invariant_08_save_and_load_is_the_same_model(
    case: Case, moved: StratifiedForSequenceClassification, tmp_path: Path
) -> None:
    moved.save_pretrained(tmp_path)
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ours, theirs = moved.state_dict(), again.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Products round by how their tensors are aligned, and a file's are not as ours: a copy is.
    again = copy.deepcopy(again).prepare_for_inference()
    with torch.no_grad():
        assert torch.equal(moved(**case.inputs).logits, again(**case.inputs).logits)


def test_one_step_lowers_the_loss_and_reaches_every_parameter(
    case: Case, moved: StratifiedForSequenceClassification
) -> None:
    model = copy.deepcopy(moved).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.domain_head.dropout = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.rate)
    before = model(**case.batch).loss
    before.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # A key's bias shifts all scores of a query alike: its gradient is rounding, which may be 0.
    still = [name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.any())]
    assert [name for name in still if not name.endswith(("k_lin.bias", "key.bias"))] == []
    optimizer.step()
    with torch.no_grad():
        assert model(**case.batch).loss < before


@pytest.mark.parametrize("variant", ["routing", "moe"])
def test_activation_checkpointing_changes_nothing(case: Case, variant: str) -> None:
    found = []
    for checkpointing in (False, True):
        model = case.model(variant, dropout=0.0, domain_dropout=0.0).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable()
        loss = model(**case.batch).loss
        loss.backward()
        found.append((loss.detach(), [p.grad for _, p in sorted(model.named_parameters())]))
    (loss, gradients), (loss2, gradients2) = found
    assert torch.equal(loss, loss2)
    assert all(largest(a, b) < 1e-6 for a, b in zip(gradients, gradients2, strict=True) if a is not None)


def test_bfloat16_autocast_stays_near(case: Case, moved: StratifiedForSequenceClassification) -> None:
    with torch.no_grad():
        plain = moved(**case.inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = moved(**case.inputs)
    assert largest(plain.logits.softmax(-1), cast.logits.float().softmax(-1)) < 0.1


def test_every_family_has_a_tiny_checkpoint() -> None:
    assert set(TINY_FAMILIES) == set(FAMILIES)


def test_a_tokenizer_without_a_frame_is_refused(case: Case) -> None:
    bare = copy.deepcopy(case.tokenizer)
    bare.backend_tokenizer.post_processor = None
    if case.family == "gpt2":
        assert FAMILIES["gpt2"].special_token_ids(bare) == []
        return
    with pytest.raises(BackboneError, match="first place"):
        framed_special_ids(bare)


def test_a_pooling_that_the_family_does_not_have(case: Case) -> None:
    with pytest.raises(BackboneError, match=r"'middle'.*choose"):
        case.model("none", pooling="middle")


def test_a_family_that_does_not_fit_the_checkpoint(case: Case) -> None:
    wanted = "gpt2" if case.family != "gpt2" else "bert"
    with pytest.raises(BackboneError, match=rf"{wanted!r} does not fit .*leave family out"):
        load_pretrained(
            case.folder,
            family=wanted,
            variant="none",
            labels=("a", "b"),
            domains=("x",),
            domain_labels=[[0, 1]],
            max_length=32,
            seed=0,
        )


def test_attention_dropout_is_set_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    kernel = nn.functional.scaled_dot_product_attention

    def watched(*tensors: Any, **options: Any) -> Tensor:
        seen.append(options["dropout_p"])
        return kernel(*tensors, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    for attention, wanted in ((None, 0.2), (0.0, 0.0)):
        seen.clear()
        with quiet():
            model, _ = load_pretrained(
                case.folder, variant="layers", labels=("no", "yes"), domains=DOMAINS,
                domain_labels=[[0, 1]] * len(DOMAINS), max_length=32, seed=0, gate_dim=8,
                dropout=0.2, attention_dropout=attention,
            )  # fmt: skip
        model.train()(**case.inputs)
        assert seen == [wanted] * LAYERS
        others = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
        assert 0.2 in others
        assert model.family.ffn_dropout(model.backbone.config) == 0.2
