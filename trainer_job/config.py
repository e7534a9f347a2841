"""What a sweep may be told: frozen pydantic models, filled from YAML, `STRATIFIED_…` variables and `--set`.

It does not know where the values are used; it only refuses what cannot work, before a model or a data set is
touched. Each refusal names the value, the rule and the cure. Unknown keys are refused everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SPLITS = ("train", "validation", "test")
VARIANTS = ("none", "attention", "routing", "layers", "moe")
CONTROLS = ("shuffled", "random_gate", "lexical", "domain_only")  # of every variant but none
ARMS = (*VARIANTS, "none:matched", *(f"{name}:{how}" for name in VARIANTS[1:] for how in CONTROLS))


class Settings(BaseModel):
    """Base of every section: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _train_alone() -> dict[Literal["train", "validation", "test"], str]:
    return {"train": "train"}


def _as_text(value: object) -> object:
    """YAML reads an unquoted 0 as a number and an unquoted no as false; both mean the text in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class HubSource(Settings):
    """A data set of the Hugging Face hub; `splits` maps our split names to the hub's."""

    kind: Literal["hub"]
    path: str
    name: str | None = None
    revision: str | None = None
    splits: dict[Literal["train", "validation", "test"], str] = Field(default_factory=_train_alone)


class FilesSource(Settings):
    """Local files: one glob a split, relative to `data.root`; format by suffix unless `format` says."""

    kind: Literal["files"]
    splits: dict[Literal["train", "validation", "test"], str]
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = None
    encoding: str = "utf-8"
    repair_mojibake: bool = False


class SavedSource(Settings):
    """A folder that `datasets` wrote with `save_to_disk`; `splits` maps our names to its own."""

    kind: Literal["saved"]
    path: str
    splits: dict[Literal["train", "validation", "test"], str] = Field(default_factory=_train_alone)


class PackageSource(Settings):
    """A file inside an installed Python package, found without importing the package."""

    kind: Literal["package"]
    package: str
    file: str
    format: Literal["jsonl", "csv", "tsv", "parquet"] | None = None
    encoding: str = "utf-8"
    repair_mojibake: bool = False


Source = Annotated[HubSource | FilesSource | SavedSource | PackageSource, Field(discriminator="kind")]


class Thresholds(Settings):
    """Turns a rating into three classes: below `negative` / above `positive` / neutral between, inclusive."""

    negative: float
    positive: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.negative > self.positive:
            msg = f"thresholds negative={self.negative} > positive={self.positive}; set negative ≤ positive"
            raise ValueError(msg)
        return self


class DomainConfig(Settings):
    """One domain: where its rows are, and how their labels read as ours.

    Exactly one of `label_map` (raw value as text → label) and `thresholds` (numeric rating) is given.
    `labels` is the declared label set: a label outside it, or a declared one without rows, is refused.
    `where` keeps rows whose column has the value. `group` names a column (cut before `group_separator`)
    whose rows stay in one split, for sentences of one document. `cap` reads at most so many rows of a split,
    drawn at random in the source's own label shares: for sources of millions.
    """

    source: Source
    text: str = "text"
    label: str = "label"
    label_map: dict[str, str] | None = None
    thresholds: Thresholds | None = None
    labels: tuple[str, ...]
    where: dict[str, str] = Field(default_factory=dict)
    group: str | None = None
    group_separator: str | None = None
    cap: dict[Literal["train", "validation", "test"], Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict
    )
    licence: str | None = None

    @field_validator("label_map", "where", mode="before")
    @classmethod
    def _raw_values_are_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {_as_text(raw): _as_text(meaning) for raw, meaning in value.items()}

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if (self.label_map is None) == (self.thresholds is None):
            raise ValueError("give exactly one of label_map and thresholds")
        if len(set(self.labels)) < 2:  # a domain of one class teaches only its name
            msg = (
                f"labels={list(self.labels)}: a domain needs at least two classes; declare every label it has"
            )
            raise ValueError(msg)
        unknown = set(self.label_map.values()) - set(self.labels) if self.label_map else set()
        if unknown:
            msg = (
                f"label_map yields {sorted(unknown)}, outside labels={list(self.labels)}; add or correct them"
            )
            raise ValueError(msg)
        unused = set(self.labels) - set(self.label_map.values()) if self.label_map else set()
        if unused:
            msg = (
                f"labels {sorted(unused)} are in no entry of label_map; map a raw value to each or drop them"
            )
            raise ValueError(msg)
        return self


class DataConfig(Settings):
    """The domains and how they are cut. `*_samples` are totals over all domains; null takes every row.

    `domain_shares` spreads a total over the domains evenly, or by size^(1/`share_temperature`);
    `label_shares` spreads a domain's training rows over its labels. Evaluation splits always keep a domain's
    own label shares. `leak_levels` is what the leak guard looks for; `keep_leaks` reports leaks but trains on
    them.
    """

    root: Path | None = None
    seed: int = 13
    labels: tuple[str, ...] = ("negative", "neutral", "positive")
    domains: dict[str, DomainConfig] = Field(min_length=1)
    train_samples: int | None = Field(4000, ge=1)
    validation_samples: int | None = Field(None, ge=1)
    test_samples: int | None = Field(None, ge=1)
    validation_fraction: float = Field(0.15, gt=0, lt=0.5)
    test_fraction: float = Field(0.25, gt=0, lt=0.5)
    domain_shares: Literal["even", "size"] = "even"
    share_temperature: float = Field(1.0, ge=1)
    label_shares: Literal["even", "natural"] = "even"
    leak_levels: tuple[Literal["exact", "span", "near"], ...] = Field(("exact", "span"), min_length=1)
    keep_leaks: bool = False
    mask_absent_labels: bool = False

    @model_validator(mode="after")
    def _labels_known(self) -> Self:
        for name, domain in self.domains.items():
            unknown = sorted(set(domain.labels) - set(self.labels))
            if unknown:
                msg = (
                    f"domain {name!r} declares labels {unknown}, outside data.labels={list(self.labels)}; "
                    "correct one"
                )
                raise ValueError(msg)
        return self


class ModelConfig(Settings):
    """The backbone (`hub id`, local folder, or `package:NAME`) and the stratified geometry upon it.

    `matched_variant` is the variant whose added parameters the control `none:matched` equals;
    `out_of_domain_score` what the service calls out of domain by (docs/models.md compares them).

    `family: null` runs a checkpoint as what it is; `distilbert` also takes a BERT checkpoint and converts it.
    `pooling` matters for gpt2 alone: the mean over content tokens (null), or the last token.
    """

    backbone: str = "distilbert-base-uncased"
    revision: str | None = None
    family: Literal["distilbert", "bert", "roberta", "gpt2"] | None = None
    pooling: Literal["first", "mean", "last"] | None = None
    max_length: int = Field(256, ge=8)
    strata: int = Field(8, ge=2, le=64)
    gate_dim: int = Field(64, ge=4)
    experts: int = Field(4, ge=2)
    matched_variant: Literal["attention", "routing", "layers", "moe"] = "routing"
    domain_bias: bool = True
    domain_dropout: float = Field(0.5, ge=0, le=1)
    dropout: float | None = Field(None, ge=0, lt=1)
    out_of_domain_score: Literal["energy", "mahalanobis", "nearest"] = "energy"
    domain_loss: float = Field(0.1, ge=0)
    geometry_loss: float = Field(0.05, ge=0)
    balance_loss: float = Field(0.01, ge=0)


class TrainingConfig(Settings):
    """Optimisation. `batch_size` is global: the same on one process and on many.

    `micro_batch_size` is rows a process and forward pass; the rest of its share is accumulated. `evaluations`
    is their number over the run (null: one an epoch); each also saves a checkpoint. `keep_checkpoints` keeps
    them after a unit is bundled. `frozen_blocks` keeps the embeddings and that many lowest blocks as
    pretrained. `test_given_domain` reads the test split a second time with each row's domain given.
    """

    epochs: float = Field(10, gt=0)
    max_steps: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    micro_batch_size: int | None = Field(None, ge=1)
    eval_batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    new_multiplier: float = Field(10, gt=0)
    geometry_multiplier: float = Field(20, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    max_grad_norm: float = Field(1.0, gt=0)
    frozen_blocks: int = Field(0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    early_stopping_patience: int | None = Field(None, ge=1)
    evaluations: int | None = Field(None, ge=1)
    save_total_limit: int = Field(2, ge=1)
    keep_checkpoints: bool = False
    test_given_domain: bool = True
    log_every: int = Field(10, ge=1)
    activation_checkpointing: bool = False
    torch_compile: bool = False


class HardwareConfig(Settings):
    """Where it runs. `processes: auto` is one per visible GPU, one on a CPU; `precision: auto` is bf16 on
    GPUs that have it and fp32 elsewhere.
    """

    processes: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: int = Field(0, ge=0)
    grace_seconds: float = Field(120, gt=0)


class RunConfig(Settings):
    """The whole sweep."""

    results: Path = Path("results/hf_trainer_stratified")
    logs: Path = Path("logs/hf_trainer_stratified")
    cache: Path = Path("cache")
    variants: tuple[str, ...] = VARIANTS
    seeds: tuple[int, ...] = (0,)
    model: ModelConfig = ModelConfig()
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    hardware: HardwareConfig = HardwareConfig()

    @field_validator("variants")
    @classmethod
    def _variants_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in ARMS]
        if unknown or not value or len(set(value)) < len(value):
            msg = (
                f"variants {list(value)} must be distinct and among {list(VARIANTS)}, none:matched, or "
                "VARIANT:CONTROL "
                f"with a control of {list(CONTROLS)}; correct or remove {unknown or 'the repeats'}"
            )
            raise ValueError(msg)
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) < len(value) or min(value) < 0:
            msg = f"seeds {list(value)} must be distinct whole numbers ≥ 0; name at least one"
            raise ValueError(msg)
        return value
