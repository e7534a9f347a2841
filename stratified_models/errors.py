"""What can go wrong with a model or a bundle, as one tree of meanings.

It does not know exit codes or wire statuses; the programs above decide those, by class.

    ModelError (ValueError)        a value that no model can have
    ├── BackboneError              the pretrained encoder or its tokenizer cannot be used
    ├── ExportError                a model cannot be written in another format, or differs there
    └── BundleError                a directory that should hold a finished model
        ├── BundleMissing          nothing there: no directory, or no manifest in it
        ├── BundleIncomplete       the manifest names a file that is not there
        ├── BundleCorrupt          a file is not what the manifest says
        └── BundleIncompatible     the manifest is of another schema
"""

from __future__ import annotations

__all__ = [
    "BackboneError",
    "BundleCorrupt",
    "BundleError",
    "BundleIncompatible",
    "BundleIncomplete",
    "BundleMissing",
    "ExportError",
    "ModelError",
]


class ModelError(ValueError):
    """A value that no model can have; the message gives value, rule and cure."""


class BackboneError(ModelError):
    """The pretrained encoder or its tokenizer is missing, of an unsupported family, or does not fit."""


class ExportError(ModelError):
    """A model cannot be written in another format, or does not compute the same there."""


class BundleError(ModelError):
    """A directory that should hold a finished model does not."""


class BundleMissing(BundleError):  # noqa: N818  the base class says Error, the name says what is wrong
    """There is no bundle at this path."""


class BundleIncomplete(BundleError):  # noqa: N818  the base class says Error, the name says what is wrong
    """The manifest names a file that is not there, or lacks one that every bundle has."""


class BundleCorrupt(BundleError):  # noqa: N818  the base class says Error, the name says what is wrong
    """A file differs from what the manifest says.

    Attributes:
        file: name of the file inside the bundle.
        expected: what the manifest says.
        found: what was found.
    """

    def __init__(self, file: str, expected: str, found: str) -> None:
        self.file, self.expected, self.found = file, expected, found
        super().__init__(
            f"{file}: found {found}, but the manifest says {expected}; copy the bundle again or retrain it"
        )


class BundleIncompatible(BundleError):  # noqa: N818  the base class says Error, the name says what is wrong
    """The manifest was written under a schema that this version does not read."""
