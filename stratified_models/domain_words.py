"""What a text's words say of its domain, beside what the domain head reads of the encoder.

A mean over tokens of what lies at the gate's layer blurs the few words by which one domain is told from
another of the same kind: a review of a camera from one of a film. So each token of the vocabulary has one
score for each domain, and a text's scores are Σ_t table[id_t] / √n over its n content tokens: as n grows they
grow like evidence that repeats itself, not like n independent witnesses.

The table is fitted once, after training, to what the fitted head leaves unsaid, lives in a buffer, and so
travels in the bundle and is read in the same forward pass. It does not know the encoder or the strata.

M training rows, B rows, T tokens, N domains, V words of the vocabulary, U of them that are fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from stratified_models.errors import ModelError
from stratified_models.tokens import token_masks

if TYPE_CHECKING:
    from stratified_models.base import StratifiedForSequenceClassification
    from stratified_models.features import PooledRows

__all__ = ["DomainWords", "WordFit", "fit_domain_words_"]

PENALTY = 1e-4  # of 3e-5 … 3e-4 the best on validation rows of five domains
FEWEST_ROWS = 2  # in which a word must occur: of one seen once, nothing is known but where
ROUNDS, HISTORY = 200, 10  # each step remembered is two tables more in memory


class WordFit(NamedTuple):
    """How a fit went: words that got scores, and the mean cross-entropy in nats, before and after."""

    words: int
    before: float
    after: float


class DomainWords(nn.Module):
    """The table (V, N); all zero until it is fitted."""

    table: Tensor

    def __init__(self, *, vocabulary: int, domains: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(vocabulary, domains))

    def initialise_(self) -> None:
        """No word says anything."""
        init.zeros_(self.table)

    def forward(self, input_ids: Tensor, content: Tensor) -> Tensor:
        """Scores (B, N) of token ids and which of them are content, (B, T) each; 0 for an empty text."""
        said = nn.functional.embedding(input_ids, self.table)  # (B, T, N)
        share = content.to(said.dtype)
        return torch.einsum("bt,btn->bn", share, said) / share.sum(-1, keepdim=True).clamp(min=1).sqrt()


@torch.no_grad()
def fit_domain_words_(
    model: StratifiedForSequenceClassification,
    batches: Iterable[Mapping[str, Tensor]],
    rows: PooledRows,
    *,
    penalty: float = PENALTY,
) -> WordFit:
    """Fit a table to what the domain head of a trained model leaves unsaid of training rows; the head stays.

    Minimises cross-entropy of head + table, + λ/2 ‖table‖², over the words of at least two rows; convex, in
    double precision on the CPU, by L-BFGS: the same rows give the same table.

    Args:
        model: changed in place, its configuration too: what is saved from now on holds the table.
        batches: the rows' `input_ids` and `attention_mask` (B, T), in the order of `rows`.
        rows: of `features_of(model, batches)`, after the head was fitted.
        penalty: λ.

    Raises:
        ModelError: no row of a known domain, or not one row of `rows` for each of `batches`.
    """
    domains, vocabulary = len(model.config.domains), int(model.config.backbone_config.vocab_size)
    tokens = _tokens(batches, special=model.config.special_token_ids)
    if tokens.rows != len(rows.domain_id):
        raise ModelError(f"{tokens.rows} rows of words, {len(rows.domain_id)} of features; give the same")
    known = (rows.domain_id >= 0) & (rows.domain_id < domains)
    if not bool(known.any()):
        raise ModelError("no row has a known domain, so no word can speak for one; give domain ids")
    words, used = _counted(tokens, known, vocabulary)
    head, domain = model.domain_head, rows.domain_id[known]
    weight, bias = head.weight.detach().cpu().double(), head.bias.detach().cpu().double()
    said = head.gain * rows.features[known].double() @ weight.T + bias
    table = _minimise(words, said, domain, penalty)
    module = DomainWords(vocabulary=vocabulary, domains=domains)
    module.initialise_()
    module.table[used] = table.float()
    model.config.domain_words, model.domain_words = True, module.to(model.device)
    loss = nn.functional.cross_entropy
    return WordFit(len(used), float(loss(said, domain)), float(loss(said + words @ table, domain)))


class _Tokens(NamedTuple):
    """Content tokens of many rows: which row each is of, its id, 1/√n of the row's n; and how many rows."""

    row: Tensor
    id: Tensor
    share: Tensor
    rows: int


def _tokens(batches: Iterable[Mapping[str, Tensor]], *, special: Iterable[int]) -> _Tokens:
    special, parts, rows = tuple(special), [], 0
    for batch in batches:
        ids = batch["input_ids"].cpu()
        _, content = token_masks(ids, batch["attention_mask"].cpu(), ids[..., None], special=special)
        row = content.nonzero()[:, 0]
        parts.append((row + rows, ids[content], content.sum(-1).double().rsqrt()[row]))
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


def _minimise(words: Tensor, said: Tensor, domain: Tensor, penalty: float) -> Tensor:
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
        wrong = (torch.softmax(scores, -1) - truth) / len(domain)
        table.grad = turned @ wrong + penalty * table
        return nn.functional.cross_entropy(scores, domain) + penalty / 2 * table.square().sum()

    search.step(objective)  # type: ignore[no-untyped-call]
    return table
