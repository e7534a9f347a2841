"""What can be chosen about a model: one Hugging Face configuration, saved beside the weights.

It knows no tensors, and no backbone family beyond the names that all Hugging Face configurations share.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from stratified_models.errors import ModelError

__all__ = ["CONTROLS", "UNKNOWN_SCORES", "VARIANTS", "StratifiedConfig"]

VARIANTS: tuple[str, ...] = ("none", "attention", "routing", "layers", "moe")
CONTROLS: tuple[str, ...] = ("matched", "shuffled", "random_gate", "lexical", "domain_only")
UNKNOWN_SCORES: tuple[str, ...] = ("energy", "geometry", "mahalanobis", "nearest")
LABELS: tuple[str, ...] = ("negative", "neutral", "positive")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ModelError(message)


class StratifiedConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # untyped in transformers
    """Configuration of `StratifiedForSequenceClassification`.

    Attributes:
        backbone_config: the encoder's own configuration, of any registered family.
        variant: one of `VARIANTS`.
        control: one of `CONTROLS` (see `controls`): `matched` for `none`, the others for the rest.
        matched_variant: the variant whose added parameters the control `matched` equals.
        unknown_score: which of `UNKNOWN_SCORES` says how far out of domain a text is.
        unknown_rows: training rows kept for the fitted scores; 0 until they are fitted.
        domain_words: whether a table of words speaks beside the domain head; False until it is fitted.
        domain_pairs: buckets for pairs of words in that table; 0 has none.
        domain_blocks: R, blocks above the gate that speak for domains too; 0 until probes are fitted.
        domains: domain names; a domain id is a position in this list, −1 means unknown.
        domain_labels: for each domain the ids of the labels that its data has.
        num_strata: K, number of strata.
        gate_dim: g, number of principal coordinates in which the density lives; at most the encoder's width.
        num_experts: E, experts of a `moe` block, of which two answer.
        domain_bias: whether the domain weights add a class bias.
        domain_dropout: share of given domain ids that training hides.
        domain_gain: factor on what the domain head reads: how fast it learns beside the rest (see `domains`).
        domain_loss, geometry_loss, balance_loss: weights of the auxiliary losses.
        mask_absent_labels: whether classes that a domain lacks are ruled out, in training and at inference.
        max_length: longest text in tokens that this model was trained on.
        special_token_ids: ids that are never content; positions outside the attention mask are not either.
        label_smoothing: share of probability spread over all classes in the training target.
        dropout: dropout put into the encoder; None keeps the checkpoint's own.
        pooling: how hidden states become one row's vector, where the family leaves a choice; None is its own.

    Raises:
        ModelError: a value breaks a rule; the message names value, rule and cure.
    """

    model_type = "stratified"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "geometry",
        "mahalanobis",
        "nearest",
        "unknown",
        "occupancy",
        "strata",
        "loss_ce",
        "loss_domain",
        "loss_geometry",
        "loss_balance",
        "expert_load",
    ]

    backbone_config: Any = None
    variant: str = "none"
    control: str | None = None
    matched_variant: str = "routing"
    unknown_score: str = "energy"
    unknown_rows: int = 0
    domain_words: bool = False
    domain_pairs: int = 0
    domain_blocks: int = 0
    domains: list[str] | tuple[str, ...] = ("default",)
    domain_labels: list[list[int]] | None = None
    num_strata: int = 8
    gate_dim: int = 64
    num_experts: int = 4
    domain_bias: bool = True
    domain_dropout: float = 0.5
    domain_gain: float = 1.0
    domain_loss: float = 0.1
    geometry_loss: float = 0.05
    balance_loss: float = 0.01
    mask_absent_labels: bool = False
    max_length: int = 512
    special_token_ids: list[int] | tuple[int, ...] = ()
    pad_token_id: int | None = None
    label_smoothing: float = 0.0
    dropout: float | None = None
    pooling: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone_config is None:
            self.backbone_config = AutoConfig.for_model("distilbert")
        elif isinstance(self.backbone_config, dict):
            self.backbone_config = AutoConfig.for_model(**self.backbone_config)
        if self.id2label is None:
            self.id2label = dict(enumerate(LABELS))
        names = {int(i): str(name) for i, name in self.id2label.items()}
        self.label2id = {name: i for i, name in sorted(names.items())}
        self.domains = list(self.domains)
        self.special_token_ids = list(self.special_token_ids)
        if self.domain_labels is None:
            self.domain_labels = [sorted(names) for _ in self.domains]
        self.domain_labels = [list(ids) for ids in self.domain_labels]
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]  # untyped in transformers
        self._check(names)

    def _check(self, names: dict[int, str]) -> None:
        width = self.backbone_config.hidden_size
        domains, allowed = list(self.domains), list(self.domain_labels or [])
        _require(
            self.variant in VARIANTS,
            f"variant {self.variant!r} is unknown; choose one of {', '.join(VARIANTS)}",
        )
        self._check_control(len(domains))
        self.check_unknown()
        _require(
            sorted(names) == list(range(len(names))) and len(set(names.values())) == len(names) >= 2,
            f"labels {names} must be at least two distinct names with ids from 0; correct id2label",
        )
        _require(
            len(domains) >= 1 and len(set(domains)) == len(domains),
            f"domains {domains} must be distinct names, at least one; correct the list",
        )
        _require(
            len(allowed) == len(domains) and all(ids and set(ids) <= set(names) for ids in allowed),
            f"domain_labels {allowed} must give each of {domains} at least one label id of {sorted(names)}",
        )
        _require(self.num_strata >= 1, f"num_strata {self.num_strata} is below 1; set num_strata ≥ 1")
        _require(
            2 <= self.gate_dim <= width,
            f"gate_dim {self.gate_dim} is outside 2 … {width}, this encoder's width; set gate_dim ≤ {width}",
        )
        _require(
            self.num_experts >= 2, f"num_experts {self.num_experts} is below 2; two experts answer, set ≥ 2"
        )
        for name in ("domain_dropout", "label_smoothing", "dropout"):
            share = getattr(self, name)
            _require(share is None or 0 <= share <= 1, f"{name} {share} is no share; set 0 ≤ {name} ≤ 1")
        _require(
            self.domain_gain > 0,
            f"domain_gain {self.domain_gain} is not above 0; set domain_gain > 0, such as 10",
        )
        for name in ("domain_loss", "geometry_loss", "balance_loss"):
            _require(getattr(self, name) >= 0, f"{name} {getattr(self, name)} is negative; set {name} ≥ 0")

    def _check_control(self, domains: int) -> None:
        fitting = ("matched",) if self.variant == "none" else CONTROLS[1:]
        _require(
            self.control is None or self.control in fitting,
            f"control {self.control!r} does not fit variant {self.variant!r}; choose {', '.join(fitting)}",
        )
        _require(
            self.matched_variant in VARIANTS[1:],
            f"matched_variant {self.matched_variant!r} is unknown; choose one of {', '.join(VARIANTS[1:])}",
        )
        _require(
            self.control != "domain_only" or domains <= self.num_strata,
            f"control 'domain_only': {domains} domains, num_strata {self.num_strata}; set it ≥ {domains}",
        )

    def check_unknown(self) -> None:
        """Refuse a score that this model does not compute. Raises ModelError."""
        possible = ["energy", *(["geometry"] if self.has_gate else [])]
        possible += ["mahalanobis", "nearest"] if self.unknown_rows > 0 else []
        _require(
            self.unknown_score in possible and self.unknown_rows >= 0,
            f"unknown_score {self.unknown_score!r} is not computed; choose {', '.join(possible)}, or fit it",
        )

    @property
    def has_gate(self) -> bool:
        """Whether the strata are read by a gate; some controls read them elsewhere, `none` reads none."""
        return self.variant != "none" and self.control not in ("lexical", "domain_only")

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of their ids."""
        names: dict[Any, str] = dict(self.id2label or {})
        return tuple(names[i] for i in sorted(names))

    @property
    def hidden_size(self) -> int:
        """D, the encoder's width."""
        return int(self.backbone_config.hidden_size)

    @property
    def ranks(self) -> tuple[int, ...]:
        """r_k: local dimensions that stratum k may have, rising to half of the gate's coordinates."""
        half = self.gate_dim / 2
        return tuple(max(1, round(half * (k + 1) / self.num_strata)) for k in range(self.num_strata))

    @property
    def gate_layer(self) -> int:
        """ℓ_g: the block whose input the gate reads; variants act from there up."""
        return round(int(self.backbone_config.num_hidden_layers) / 3)

    @property
    def stratified_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks that a variant may change."""
        return tuple(range(self.gate_layer, int(self.backbone_config.num_hidden_layers)))
