"""Which words moved a prediction: integrated gradients of a class score over the word embeddings.

Source: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", arXiv:1703.01365. The path runs
from the embedding of padding at every content token to the text itself. It knows no variant. Where strata are
read from a density, no gradient runs through it (the task is cut off from the density): what strata alone
contribute is missing, and saliencies then sum to the difference of scores only roughly.

T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stratified_models.base import StratifiedForSequenceClassification

__all__ = ["token_saliency"]


def token_saliency(
    model: StratifiedForSequenceClassification,
    input_ids: Tensor,
    *,
    target: int | None = None,
    domain_id: int = -1,
    steps: int = 32,
) -> tuple[Tensor, int]:
    """Saliency of each token of one text for a class, and the class.

    Args:
        model: in evaluation mode.
        input_ids: token ids of the text, special tokens included, (T,).
        target: class id; None is the likeliest.
        domain_id: −1 where unknown.
        steps: points on the path, run as one batch.

    Returns:
        (T,) in units of the class's logit, positive where the token speaks for it; and the class id. Of an
        empty text (T = 0, which only a tokenizer without a frame makes) nothing speaks for anything.
    """
    ids, device = input_ids[None].to(model.device), model.device
    mask = torch.ones_like(ids)
    domain = torch.tensor([domain_id], device=device)
    words = model.get_input_embeddings()
    if ids.shape[1] == 0:
        with torch.no_grad():
            likeliest = int(model(ids, mask, domain_id=domain).logits[0].argmax())
        return torch.zeros(0), likeliest if target is None else target
    with torch.no_grad():
        if target is None:
            target = int(model(ids, mask, domain_id=domain).logits[0].argmax())
        _, content = model._token_masks(ids, mask, words(ids))
        blank = ids.clone()
        blank[content] = int(model.config.pad_token_id or 0)
        start, end = words(blank), words(ids)  # (1, T, D)
    share = (torch.arange(steps, device=device, dtype=end.dtype) + 0.5) / steps  # midpoints
    path = (start + share[:, None, None] * (end - start)).requires_grad_()  # (steps, T, D)
    scores = model(
        input_ids=ids.expand(steps, -1),
        attention_mask=mask.expand(steps, -1),
        domain_id=domain.expand(steps),
        inputs_embeds=path,
    ).logits[:, target]
    (gradient,) = torch.autograd.grad(scores.sum(), path)
    return ((end - start)[0] * gradient.mean(0)).sum(-1).detach().cpu(), target
