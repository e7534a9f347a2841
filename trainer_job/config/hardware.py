"""Where a sweep runs: devices, processes, nodes, precision, and how long to wait for what.

Everything here may differ between two runs on one results folder, but for `precision`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trainer_job.config.base import Settings


class HardwareConfig(Settings):
    """Devices and processes of one node, and the nodes."""

    processes: int | Literal["auto"] = Field(
        "auto",
        description="GPUs to use on this node, or CPU processes; auto: every visible GPU, one on a CPU",
    )
    strategy: Literal["auto", "variant-per-gpu", "ddp"] = Field(
        "auto",
        description="a unit for each process, or all processes for one unit; auto: the first when there are "
        "as many units as processes",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: GPUs where there are any")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, fp32 elsewhere; tf32 and fp16 need a GPU"
    )
    fsdp: bool = Field(
        False, description="shard weights, gradients and moments over the processes (FSDP2); implies ddp"
    )
    workers: int = Field(0, ge=0, description="loader processes beside each training process")
    grace_seconds: float = Field(120, gt=0, description="how long workers may take to save after a stop")
    stall_seconds: float | None = Field(
        1800,
        gt=0,
        description="a worker without progress for so long is ended, its stack logged; null: never",
    )
    nodes: int = Field(1, ge=1, description="machines that train one unit together")
    node_rank: int | None = Field(None, ge=0, description="of this machine; null: from the environment")
    rendezvous: str | None = Field(
        None,
        description="HOST:PORT of the first node, where torchrun's agents meet; null: from the environment",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.strategy == "variant-per-gpu" and (self.fsdp or self.nodes > 1):
            msg = (
                f"strategy=variant-per-gpu with fsdp={self.fsdp}, nodes={self.nodes}: one process trains a "
                "unit there; set strategy=ddp"
            )
            raise ValueError(msg)
        return self
