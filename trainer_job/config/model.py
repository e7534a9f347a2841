"""The backbone and the stratified geometry upon it.

It does not know training. The names of variants are kept beside torch-free code on purpose.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer_job.config.base import Settings


class ModelConfig(Settings):
    """The backbone, and what is built upon it; docs/models.md has the formulas."""

    backbone: str = Field("distilbert-base-uncased", description="hub id, local folder, or `package:NAME`")
    revision: str | None = Field(None, description="commit of the backbone on the hub")
    family: Literal["distilbert", "bert", "roberta", "gpt2"] | None = Field(
        None, description="null runs a checkpoint as what it is; `distilbert` also converts a BERT"
    )
    pooling: Literal["first", "mean", "last"] | None = Field(
        None, description="matters for gpt2 alone: mean over content tokens (null), or the last token"
    )
    max_length: int = Field(256, ge=8, description="tokens of a text, special ones included; the rest is cut")
    strata: int = Field(8, ge=2, le=64, description="number of strata")
    gate_dim: int = Field(64, ge=4, description="principal coordinates in which the strata's density lives")
    experts: int = Field(4, ge=2, description="experts of a moe block")
    matched_variant: Literal["attention", "routing", "layers", "moe"] = Field(
        "routing", description="whose added parameters the control none:matched equals"
    )
    domain_bias: bool = Field(True, description="a class bias by domain")
    domain_dropout: float = Field(0.5, ge=0, le=1, description="share of given domains that training hides")
    dropout: float | None = Field(None, ge=0, lt=1, description="in the encoder; null: the checkpoint's own")
    attention_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of attention weights; null: as `dropout`. 0: 1.3 to 1.6 times as fast on a CPU",
    )
    out_of_domain_score: Literal["auto", "energy", "geometry", "mahalanobis", "nearest"] = Field(
        "auto",
        description="by what the service calls a text strange; auto: what best finds domains left out; "
        "geometry: only where every variant has a gate",
    )
    domain_fit_rows: int = Field(
        1000,
        ge=0,
        description="rows a domain that the domain head is fitted to after training; 0: as trained",
    )
    domain_words: bool = Field(
        True, description="with that fit: a table of what each word says of the domain, beside the head"
    )
    domain_pairs: int = Field(
        0, ge=0, description="buckets for pairs of neighbouring words in that table, such as 65536; 0: none"
    )
    domain_blocks: int = Field(
        0,
        ge=0,
        description="with that fit: of how many blocks above the gate the domain is read too, such as 2 of "
        "six; as many as there are below the last; 0: none",
    )
    domain_loss: float = Field(0.1, ge=0, description="weight of the domain head's loss")
    geometry_loss: float = Field(0.05, ge=0, description="weight of the density's loss")
    balance_loss: float = Field(0.01, ge=0, description="weight of the experts' balance loss")
