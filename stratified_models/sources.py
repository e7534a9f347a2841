"""Where a pretrained encoder is, and what its configuration says.

It knows names, folders and the Hugging Face library's loading manners; no tensors.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging as hf_logging

from stratified_models.errors import BackboneError

__all__ = ["first_line", "quiet", "read_config", "resolve_backbone"]

PACKAGE = "package:"


def resolve_backbone(name: str | Path) -> str:
    """Folder or hub id that `name` means.

    `package:NAME` is the folder of an installed package that holds `model/config.json` or `config.json`; the
    package is found, not imported. Everything else passes unchanged.

    Raises:
        BackboneError: the package is not installed, or holds no model.
    """
    text = str(name)
    if not text.startswith(PACKAGE):
        return text
    package = text.removeprefix(PACKAGE)
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise BackboneError(f"backbone {text!r}: no package {package!r} is installed; install it with pip")
    for root in spec.submodule_search_locations or []:
        for folder in (Path(root) / "model", Path(root)):
            if (folder / "config.json").is_file():
                return str(folder)
    raise BackboneError(
        f"backbone {text!r}: the package holds no config.json; name a package with a model in it"
    )


def read_config(source: str, revision: str | None) -> PreTrainedConfig:
    """The configuration of a folder or hub id.

    Raises:
        BackboneError: it cannot be found or read.
    """
    known = "a folder with config.json, package:NAME, or a hub id that can be reached"
    if source.startswith(("/", ".", "~")) and not Path(source).is_dir():  # no hub id begins so
        raise BackboneError(f"backbone {source!r}: there is no such folder; give {known}")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, revision=revision)
        return config
    except (OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise BackboneError(
            f"backbone {source!r} cannot be loaded: {first_line(error)}; give {known}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for use inside another."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's own loading report: ours says the same, and stops where it must."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers
