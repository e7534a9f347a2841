"""Where a domain's rows may be: the hub, local files, a saved `datasets` folder, an installed package.

It does not know what the rows mean (`domains` does), nor how they are read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer_job.config.base import Settings, SplitName

Format = Literal["jsonl", "csv", "tsv", "parquet"]


def _train_alone() -> dict[SplitName, str]:
    return {"train": "train"}


class HubSource(Settings):
    """A data set of the Hugging Face hub."""

    kind: Literal["hub"]
    path: str = Field(description="name on the hub, or a local folder in the hub's layout")
    name: str | None = Field(None, description="configuration of the data set, where it has several")
    revision: str | None = Field(None, description="commit of 40 digits; a branch name is no pin")
    splits: dict[SplitName, str] = Field(default_factory=_train_alone, description="our split: the hub's")


class FilesSource(Settings):
    """Local files; relative paths start at `data.root`."""

    kind: Literal["files"]
    splits: dict[SplitName, str] = Field(description="our split: a path or a glob, read in order of names")
    format: Format | None = Field(None, description="null: by suffix; .gz may follow all but .parquet")
    encoding: str = Field("utf-8", description="of the text, by Python's name")
    repair_mojibake: bool = Field(False, description="mend texts that were decoded wrongly (ftfy)")


class SavedSource(Settings):
    """A folder that `datasets` wrote with `save_to_disk`."""

    kind: Literal["saved"]
    path: str = Field(description="the folder, relative to data.root")
    splits: dict[SplitName, str] = Field(default_factory=_train_alone, description="our split: its own")


class PackageSource(Settings):
    """A file inside an installed Python package, found without importing the package."""

    kind: Literal["package"]
    package: str = Field(description="the name by which Python would import it")
    file: str = Field(description="path inside the package")
    format: Format | None = Field(None, description="null: by suffix")
    encoding: str = Field("utf-8", description="of the text, by Python's name")
    repair_mojibake: bool = Field(False, description="mend texts that were decoded wrongly (ftfy)")


Source = Annotated[HubSource | FilesSource | SavedSource | PackageSource, Field(discriminator="kind")]
