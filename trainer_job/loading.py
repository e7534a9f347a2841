"""From a file name, the environment and `--set` to one validated `RunConfig`.

Later sources win: the YAML file, then `STRATIFIED_TRAIN__SECTION__KEY` variables, then `--set
section.key=value`. It does not know what any key means; `trainer_job.config` decides what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from trainer_job import strict_yaml
from trainer_job.config import RunConfig
from trainer_job.errors import ConfigError

SHIPPED = Path(__file__).parent / "configs"
PREFIX = "STRATIFIED_TRAIN__"


def shipped_names() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file that `--config` means: a path, or the bare name of a shipped configuration. Raises
    ConfigError.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if "/" not in name and shipped.is_file():
        return shipped
    msg = (
        f"--config {name!r}: no such file and no shipped configuration; give a YAML file or one of "
        f"{shipped_names()}"
    )
    raise ConfigError(msg)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it cannot be read or is no mapping."""
    try:
        value = strict_yaml.load(path.read_text(encoding="utf-8"))
    except strict_yaml.DuplicateKey as error:
        raise ConfigError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not readable as YAML ({reason}); correct the file") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds {type(value).__name__}, not key: value pairs; write a mapping")
    return value


def _put(tree: dict[str, Any], keys: list[str], value: Any, *, origin: str) -> None:
    """Set tree[k1][k2]… = value, making the mappings on the way."""
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(
                f"{origin}: {key!r} holds {below!r}, not a section; name a key inside a section"
            )
        tree = below
    tree[keys[-1]] = value


def _parsed(text: str, *, origin: str) -> Any:
    """A value as YAML reads it: numbers, true/false, null, [lists], text."""
    try:
        return strict_yaml.load(text)
    except strict_yaml.DuplicateKey as error:
        raise ConfigError(f"{origin}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {text!r} is no YAML value; quote it") from error


def apply_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Overlay `STRATIFIED_TRAIN__TRAINING__EPOCHS=3` and its like; a double underscore descends one level."""
    for name in sorted(environ):
        if name.startswith(PREFIX):
            keys = name[len(PREFIX) :].lower().split("__")
            if not all(keys):
                raise ConfigError(f"variable {name}: has an empty part; write {PREFIX}SECTION__KEY")
            _put(tree, keys, _parsed(environ[name], origin=f"variable {name}"), origin=f"variable {name}")


def apply_settings(tree: dict[str, Any], settings: Iterable[str]) -> None:
    """Overlay `section.key=value` items. Raises ConfigError for an item of another form."""
    for item in settings:
        name, separator, text = item.partition("=")
        keys = name.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set {item!r}: not of the form section.key=value, as in training.epochs=3")
        _put(tree, keys, _parsed(text, origin=f"--set {item}"), origin=f"--set {item}")


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names allowed where an unknown key was found, as far as the location leads through sections."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _explain(error: ValidationError) -> str:
    """One line out of pydantic's report: the first problems, each with its place, value and rule."""
    parts = []
    for item in error.errors()[:3]:
        place = ".".join(str(part) for part in item["loc"]) or "configuration"
        if item["type"] == "extra_forbidden":
            known = _fields_at(RunConfig, item["loc"])
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else "remove it or correct its name"
            parts.append(f"{place}: unknown key; {cure}")
        elif item["type"] == "missing":
            parts.append(f"{place}: missing; add it")
        else:
            rule = item["msg"].removeprefix("Value error, ")
            shown = item["input"]
            value = "" if isinstance(shown, dict | BaseModel) else f" = {shown!r}"
            parts.append(f"{place}{value}: {rule}")
    more = len(error.errors()) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def load_config(
    name: str, *, settings: Iterable[str] = (), environ: Mapping[str, str] | None = None
) -> RunConfig:
    """Read, overlay and validate a configuration. Raises ConfigError with value, rule and cure."""
    path = find_config(name)
    tree = read_yaml(path)
    apply_environment(tree, environ or {})
    apply_settings(tree, settings)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {_explain(error)}") from error
