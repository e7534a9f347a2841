"""Texts that no domain holds, and how well each score tells them from those that belong.

Four kinds of broken or foreign input, made from the texts at hand and from what ships with Python: random
token ids, shuffled words, program code, other languages. And domains that the model does not know, where the
texts at hand name some; for known ones left out, see `stratified_models.left_out`.
"""

from __future__ import annotations

import ast
import inspect
import logging
import random
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stratified_models import diagnostics

if TYPE_CHECKING:
    from stratified_models.features import PooledRows
    from trainer_job.inspection.texts import Texts

__all__ = ["KINDS", "foreign_rows", "strange_figures", "unseen_domains"]

KINDS = ("random ids", "shuffled words", "code", "other languages")
COUNT = 120  # texts of a kind
FEWEST, FEWEST_UNSEEN = 40, 20
LANGUAGES = (
    "Der Film ist langweilig und viel zu lang, aber die Musik ist schön.",
    "Ich habe das Gerät gestern gekauft und bin sehr zufrieden damit.",
    "Les acteurs jouent très bien, mais l'histoire ne va nulle part.",
    "Je n'ai pas aimé ce livre, il est arrivé abîmé et en retard.",
    "La película es aburrida, aunque el final merece la pena.",
    "Me encantó el servicio y volveré muy pronto con mi familia.",
    "Il prodotto si è rotto dopo due giorni, non lo consiglio a nessuno.",
    "De acteurs waren goed, maar het verhaal was veel te voorspelbaar.",
    "O livro é excelente e a entrega foi muito rápida.",
    "Filmen var dålig och skådespelarna verkade trötta.",
    "Film był nudny, ale zdjęcia są naprawdę piękne.",
    "Фильм мне очень понравился, особенно игра главных актёров.",
    "この映画はとても面白かったので、もう一度見たいです。",
    "这本书写得很好,我会推荐给所有的朋友。",
    "المنتج رائع والخدمة كانت سريعة جدا.",
)


def foreign_rows(
    texts: Sequence[str], tokenizer: Any, *, max_length: int, seed: int = 0
) -> dict[str, list[list[int]]]:
    """Token ids of texts of every kind, at lengths like those of `texts` where the kind leaves a choice."""
    rng = random.Random(seed)  # noqa: S311  # a draw of texts, no secret
    chosen = rng.sample(list(texts), min(COUNT, len(texts)))

    def encode(rows: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(list(rows), truncation=True, max_length=max_length)["input_ids"]
        return [row for row in found if row]

    special = set(tokenizer.all_special_ids)
    usual = [token for token in range(len(tokenizer)) if token not in special]
    random_ids = [
        [token if token in special else rng.choice(usual) for token in row] for row in encode(chosen)
    ]
    shuffled = [" ".join(rng.sample(words, len(words))) for words in map(str.split, chosen)]
    return {
        "random ids": random_ids,
        "shuffled words": encode(shuffled),
        "code": encode(_code(rng)),
        "other languages": encode([" ".join(rng.sample(LANGUAGES, 1 + n % 2)) for n in range(COUNT)]),
    }


def _code(rng: random.Random) -> list[str]:
    """Pieces of six lines out of Python's own library."""
    pieces = []
    for module in (ast, inspect, logging, textwrap):
        lines = [line for line in inspect.getsource(module).splitlines() if line.strip()]
        pieces += ["\n".join(lines[at : at + 6]) for at in range(0, len(lines) - 6, 6)]
    return rng.sample(pieces, min(COUNT, len(pieces)))


def unseen_domains(texts: Texts) -> dict[str, np.ndarray]:
    """Which texts, (R,), are of each domain that the model does not know, of 20 texts or more."""
    kinds = {}
    for name in sorted(set(texts.strangers.tolist()) - {""}):
        chosen = texts.strangers == name
        if chosen.sum() >= FEWEST_UNSEEN:
            kinds[f"domain never seen: {name}"] = chosen
    return kinds


def strange_figures(
    known: PooledRows,
    foreign: Mapping[str, PooledRows],
    *,
    geometry: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any] | None:
    """AUROC of each score for each kind, half of the known texts fitted on and half asked.

    Args:
        known: of the texts at hand, domain −1 where unknown; `foreign` of each kind's texts.
        geometry: the gate's score, of `known` under that name and of each kind; None without a gate.

    Returns None with fewer than two domains or too few texts.
    """
    from stratified_models.left_out import fit_scores

    usable = known.domain_id >= 0
    if int(usable.sum()) < FEWEST or len(set(known.domain_id[usable].tolist())) < 2:
        return None
    fitted = usable.new_tensor(np.random.default_rng(seed).random(len(usable)) < 0.5)
    scores = fit_scores(known.take(usable & fitted), seed=seed)
    asked = usable & ~fitted
    inside = scores(known.take(asked))
    kinds = {}
    for kind, rows in foreign.items():
        outside = scores(rows)
        kinds[kind] = {name: diagnostics.auroc(inside[name], outside[name]) for name in inside}
        if geometry is not None:
            kinds[kind]["geometry"] = diagnostics.auroc(geometry["known"][asked.numpy()], geometry[kind])
    return {"scores": list(next(iter(kinds.values()))), "kinds": kinds}
