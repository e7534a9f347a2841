"""What a sweep may be told: frozen pydantic models, filled from YAML, `STRATIFIED_…` variables and `--set`.

One section a module, and a description with each key. They only refuse what cannot work, before a model or a
data set is touched; each refusal names the value, the rule and the cure. Unknown keys are refused everywhere.
"""

from trainer_job.config.base import ARMS, CONTROLS, SPLITS, VARIANTS, Settings
from trainer_job.config.data import DataConfig
from trainer_job.config.domains import DomainConfig, Thresholds
from trainer_job.config.hardware import HardwareConfig
from trainer_job.config.model import ModelConfig
from trainer_job.config.run import RunConfig
from trainer_job.config.sources import FilesSource, HubSource, PackageSource, SavedSource, Source
from trainer_job.config.training import TrainingConfig

__all__ = [
    "ARMS",
    "CONTROLS",
    "SPLITS",
    "VARIANTS",
    "DataConfig",
    "DomainConfig",
    "FilesSource",
    "HardwareConfig",
    "HubSource",
    "ModelConfig",
    "PackageSource",
    "RunConfig",
    "SavedSource",
    "Settings",
    "Source",
    "Thresholds",
    "TrainingConfig",
]
