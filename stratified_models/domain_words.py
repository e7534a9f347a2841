"""What a text's words say of its domain, beside what the domain head reads of the encoder.

A mean over tokens of what lies at the gate's layer blurs the few words by which one domain is told from
another of the same kind: a review of a camera from one of a film. So each token of the vocabulary has one
score for each domain, and a text's scores are Σ_t table[id_t] / √n over its n content tokens: as n grows they
grow like evidence that repeats itself, not like n independent witnesses. Pairs of neighbours can have
scores too, in buckets that they share by chance (feature hashing, Weinberger et al. 2009,
https://arxiv.org/abs/0902.2206); they are summed alike.

The table is fitted once, after training, to what the fitted head leaves unsaid, lives in a buffer, and so
travels in the bundle and is read in the same forward pass. It does not know the encoder or the strata.

M training rows, B rows, T tokens, N domains, V words of the vocabulary, P buckets of pairs, U words and
buckets that are fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.domain_fit import ROWS, mean_loss
from stratified_models.domains import DomainHead
from stratified_models.errors import ModelError
from stratified_models.tokens import token_masks

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.features import PooledRows

__all__ = ["DomainWords", "WordFit", "check_pairs", "fit_domain_words_", "pair_buckets"]

PENALTY = 1e-4  # of 3e-5 … 3e-4 the best on validation rows of five domains, for `ROWS` rows
FEWEST_ROWS = 2  # in which a word must occur: of one seen once, nothing is known but where
ROUNDS, HISTORY = 200, 10  # each step remembered is two tables more in memory


FACTOR = 7919  # a prime that scatters pairs over the buckets, in 32 bits: OpenVINO computes whole numbers so


class WordFit(NamedTuple):
    """How a fit went: words, and buckets of pairs, that got scores; mean cross-entropy, in nats, before and
    after."""

    words: int
    before: float
    after: float


class DomainWords(nn.Module):
    """The table (V + P, N); all zero until it is fitted."""

    table: Tensor

    def __init__(self, *, vocabulary: int, domains: int, pairs: int = 0) -> None:
        super().__init__()
        check_pairs(vocabulary, pairs)
        self.vocabulary, self.pairs = vocabulary, pairs
        self.register_buffer("table", torch.empty(vocabulary + pairs, domains))

    def initialise_(self) -> None:
        """No word says anything."""
        init.zeros_(self.table)

    def forward(self, input_ids: Tensor, content: Tensor) -> Tensor:
        """Scores (B, N) of token ids and which of them are content, (B, T) each; 0 for an empty text."""
        words = content.to(self.table.dtype)
        said = torch.einsum("bt,btn->bn", words, nn.functional.embedding(input_ids, self.table))
        if self.pairs:
            buckets, there = pair_buckets(input_ids, content, pairs=self.pairs)
            scores = nn.functional.embedding(buckets + self.vocabulary, self.table)  # (B, T, N)
            said = said + torch.einsum("bt,btn->bn", there.to(said.dtype), scores)
        return said / words.sum(-1, keepdim=True).clamp(min=1).sqrt()


def check_pairs(vocabulary: int, pairs: int) -> None:
    """Refuse pairs of so many words that their numbers leave 32 bits. Raises ModelError."""
    if pairs and vocabulary * (FACTOR + 1) > 2**31:
        raise ModelError(
            f"domain_pairs {pairs}: {vocabulary:,} words are more than {2**31 // (FACTOR + 1):,}, which can "
            "be paired; set it to 0"
        )


def pair_buckets(input_ids: Tensor, content: Tensor, *, pairs: int) -> tuple[Tensor, Tensor]:
    """The bucket of each token and the next one, 0 … `pairs` − 1, and where both are content; (B, T) each.

    The last position has no next one; it is kept, so that the length stays one for export.
    """
    following = nn.functional.pad(input_ids[:, 1:], (0, 1))
    both = content.long() * nn.functional.pad(content[:, 1:].long(), (0, 1))
    return torch.remainder(input_ids * FACTOR + following, pairs), both.bool()


@torch.no_grad()
def fit_domain_words_(
    model: StratifiedForSequenceClassification,
    batches: Iterable[Mapping[str, Tensor]],
    rows: PooledRows,
    *,
    penalty: float | None = None,
    weights: Tensor | None = None,
    pairs: int = 0,
    said: Tensor | None = None,
) -> WordFit:
    """Fit a table to what the domain head of a trained model leaves unsaid of training rows; the head stays.

    Minimises cross-entropy of head + table, + λ/2 ‖table‖², over the words of at least two rows; convex, in
    double precision on the CPU, by L-BFGS: the same rows give the same table.

    Args:
        model: changed in place, its configuration too: what is saved from now on holds the table.
        batches: the rows' `input_ids` and `attention_mask` (B, T), in the order of `rows`.
        rows: of `features_of(model, batches)`, after the head was fitted.
        penalty: λ; None is `PENALTY`, and less in proportion with more rows than `ROWS`.
        weights: how much each row counts, (M,), as by `shared_weights`; None is one each.
        pairs: P, buckets for pairs of neighbours; 0 is none.
        said: scores (M, N) to which the table adds, as of probes; None is those of the head.

    Raises:
        ModelError: no row of a known domain, or not one row of `rows` for each of `batches`.
    """
    domains, vocabulary = len(model.config.domains), int(model.config.backbone_config.vocab_size)
    tokens = _tokens(batches, special=model.config.special_token_ids, vocabulary=vocabulary, pairs=pairs)
    if tokens.rows != len(rows.domain_id):
        raise ModelError(f"{tokens.rows} rows of words, {len(rows.domain_id)} of features; give the same")
    known = (rows.domain_id >= 0) & (rows.domain_id < domains)
    if not bool(known.any()):
        raise ModelError("no row has a known domain, so no word can speak for one; give domain ids")
    words, used = _counted(tokens, known, vocabulary + pairs)
    domain = rows.domain_id[known]
    said = (_head_says(model.domain_head, rows.features) if said is None else said.cpu().double())[known]
    if penalty is None:
        penalty = PENALTY * min(1.0, ROWS / len(domain))
    weights = None if weights is None else weights.cpu().double()[known]
    table = _minimise(words, said, domain, penalty, weights)
    module = DomainWords(vocabulary=vocabulary, domains=domains, pairs=pairs)
    module.initialise_()
    module.table[used] = table.float()
    model.config.domain_words, model.config.domain_pairs = True, pairs
    model.domain_words = module.to(model.device)
    before, after = (mean_loss(scores, domain, weights) for scores in (said, said + words @ table))
    return WordFit(len(used), float(before), float(after))


def _head_says(head: DomainHead, features: Tensor) -> Tensor:
    """Scores (M, N) of features (M, D), in double precision."""
    weight, bias = head.weight.detach().cpu().double(), head.bias.detach().cpu().double()
    return head.gain * features.double() @ weight.T + bias


class _Tokens(NamedTuple):
    """Content tokens of many rows, and their pairs: which row each is of, its place in the table, 1/√n of the
    row's n tokens; and how many rows."""

    row: Tensor
    id: Tensor
    share: Tensor
    rows: int


def _tokens(
    batches: Iterable[Mapping[str, Tensor]], *, special: Iterable[int], vocabulary: int, pairs: int
) -> _Tokens:
    special, parts, rows = tuple(special), [], 0
    for batch in batches:
        ids = batch["input_ids"].cpu()
        _, content = token_masks(ids, batch["attention_mask"].cpu(), ids[..., None], special=special)
        root = content.sum(-1).double().rsqrt()
        found = [(ids, content)]
        if pairs:
            buckets, both = pair_buckets(ids, content, pairs=pairs)
            found.append((buckets + vocabulary, both))
        for places, there in found:
            row = there.nonzero()[:, 0]
            parts.append((row + rows, places[there], root[row]))
        rows += len(ids)
    row, ids, share = (torch.cat(part) for part in zip(*parts, strict=True))
    return _Tokens(row, ids, share, rows)


def _counted(tokens: _Tokens, known: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Of the `known` rows the shares of the words that two rows or more have, sparse (M, U), and their ids,
    (U,)."""
    kept = known[tokens.row]
    row, ids, share = (known.cumsum(0) - 1)[tokens.row[kept]], tokens.id[kept], tokens.share[kept]
    once = torch.unique(row * vocabulary + ids) % vocabulary  # each word once a row
    used = (torch.bincount(once, minlength=vocabulary) >= FEWEST_ROWS).nonzero().flatten()
    place = torch.full((vocabulary,), -1)
    place[used] = torch.arange(len(used))
    often = place[ids] >= 0
    places = torch.stack([row[often], place[ids[often]]])
    size = (int(known.sum()), len(used))
    return torch.sparse_coo_tensor(places, share[often], size, check_invariants=False).coalesce(), used


def _minimise(words: Tensor, said: Tensor, domain: Tensor, penalty: float, weights: Tensor | None) -> Tensor:
    """The table (U, N) at which the gradient vanishes, of sparse `words` (M, U) and the head's scores (M, N).

    The gradient is written out: that of a sparse product takes ten times as long as the product.
    """
    table = torch.zeros(words.shape[1], said.shape[1], dtype=torch.double)
    truth, turned = nn.functional.one_hot(domain, said.shape[1]), words.t().coalesce()
    search = torch.optim.LBFGS(
        [table], max_iter=ROUNDS, history_size=HISTORY, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        scores = said + words @ table
        wrong = torch.softmax(scores, -1) - truth
        wrong = wrong / len(domain) if weights is None else wrong * (weights / weights.sum())[:, None]
        table.grad = turned @ wrong + penalty * table
        return mean_loss(scores, domain, weights) + penalty / 2 * table.square().sum()

    search.step(objective)  # type: ignore[no-untyped-call]
    return table
