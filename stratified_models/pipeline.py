"""The library's text classification, with a text's domain as an optional argument.

`pipeline("text-classification", model=BUNDLE)("text", domain="imdb")`: importing the package puts this class
in the place of the library's own, of which it is an extension; any other model runs as before. It does not
know calibration or thresholds; those are the bundle's, and the service applies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from transformers import TextClassificationPipeline

from stratified_models.base import StratifiedForSequenceClassification
from stratified_models.errors import ModelError
from stratified_models.keywords import refuse_unknown_words

__all__ = ["DomainTextClassification"]


class DomainTextClassification(TextClassificationPipeline):
    """Classify texts; `domain=NAME` for all of them, or {"text": …, "domain": NAME} for one.

    Texts are cut at the length that the model was trained on, unless `truncation` says otherwise.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]  # untyped in transformers
        if isinstance(self.model, StratifiedForSequenceClassification):
            self.model.prepare_for_inference()

    @property
    def _is_ours(self) -> bool:
        return isinstance(self.model, StratifiedForSequenceClassification)

    def check_model_type(self, supported_models: list[str] | dict[Any, Any]) -> None:
        """Ours is supported, though not in the library's own list."""
        if not self._is_ours:
            super().check_model_type(supported_models)

    def preprocess(  # type: ignore[override]  # the library's own override renames the argument too
        self, inputs: Any, domain: str | None = None, **tokenizer_kwargs: Any
    ) -> dict[str, Any]:
        """One text, or a mapping of `text` and perhaps `domain`, as a batch of one row.

        Raises:
            ModelError: the model does not know the domain.
            TypeError: a word that neither this class nor the tokenizer takes, such as a misspelt one.
        """
        if not self._is_ours:
            given = {} if domain is None else {"domain": domain}
            return super().preprocess(inputs, **given, **tokenizer_kwargs)
        if isinstance(inputs, Mapping):
            inputs = dict(inputs)
            domain = inputs.pop("domain", domain)
        beside = inputs if isinstance(inputs, Mapping) else {}
        refuse_unknown_words((*beside, *tokenizer_kwargs), cast(Callable[..., object], self.tokenizer))
        limits = {"truncation": True, "max_length": self.model.config.max_length, **tokenizer_kwargs}
        row: dict[str, Any] = super().preprocess(inputs, **limits)
        row["input_ids"] = row["input_ids"].long()  # of no tokens at all, the tokenizer makes floats
        row["domain_id"] = torch.tensor([self._domain_id(domain)])
        return row

    def _domain_id(self, domain: str | None) -> int:
        names = list(self.model.config.domains)
        if domain is not None and domain not in names:
            raise ModelError(
                f"domain {domain!r} is unknown to this model; choose one of {', '.join(names)}, or none"
            )
        return -1 if domain is None else names.index(domain)
