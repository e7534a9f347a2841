"""The whole sweep: folders, variants, seeds, and the sections.

It does not know where the values are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from trainer_job.config.base import ARMS, CONTROLS, VARIANTS, Settings
from trainer_job.config.data import DataConfig
from trainer_job.config.hardware import HardwareConfig
from trainer_job.config.model import ModelConfig
from trainer_job.config.training import TrainingConfig

NO_DENSITY = (":lexical", ":domain_only", ":random_gate")  # controls whose gate, if any, learns no density


class RunConfig(Settings):
    """The whole sweep."""

    results: Path = Field(
        Path("results/hf_trainer_stratified"), description="one folder holds one experiment"
    )
    logs: Path = Field(Path("logs/hf_trainer_stratified"), description="TensorBoard events and JSON lines")
    cache: Path = Field(Path("cache"), description="built corpora and token ids; may be deleted")
    variants: tuple[str, ...] = Field(
        VARIANTS, description="arms of the sweep; VARIANT:CONTROL and none:matched name controls"
    )
    seeds: tuple[int, ...] = Field((0,), description="each variant is trained once with each")
    report_to: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="experiment trackers beside TensorBoard, by Trainer's own integrations"
    )
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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.training.prior_correction and not self.model.domain_bias:
            raise ValueError(
                "training.prior_correction needs a class bias by domain; set model.domain_bias=true"
            )
        if self.training.weight_average is not None and self.hardware.fsdp:
            msg = (
                f"training.weight_average={self.training.weight_average} and hardware.fsdp=true: "
                "an average is not sharded; switch one off"
            )
            raise ValueError(msg)
        self._check_domain_fit()
        bare = [name for name in self.variants if name.startswith("none") or name.endswith(NO_DENSITY)]
        if self.model.out_of_domain_score == "geometry" and bare:
            msg = (
                f"model.out_of_domain_score=geometry needs the density of a gate, and {', '.join(bare)} "
                "fits none; leave those out, or set auto, which takes geometry where it is best"
            )
            raise ValueError(msg)
        return self

    def _check_domain_fit(self) -> None:
        model, rows = self.model, self.data.domain_rows
        if rows != 0 and not model.domain_fit_rows:
            msg = (
                f"data.domain_rows={rows}: nothing is fitted to them; set model.domain_fit_rows, such as 1000"
            )
            raise ValueError(msg)
        if model.domain_blocks and not model.domain_fit_rows:
            msg = (
                f"model.domain_blocks={model.domain_blocks}: they are fitted with the domain head; set "
                "model.domain_fit_rows, such as 1000"
            )
            raise ValueError(msg)
        if model.domain_pairs and not (model.domain_words and model.domain_fit_rows):
            msg = (
                f"model.domain_pairs={model.domain_pairs} are a part of the table of words; set "
                "model.domain_words=true and model.domain_fit_rows, such as 1000"
            )
            raise ValueError(msg)
