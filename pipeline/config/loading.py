"""YAML to `Experiment`: one-level `extends`, `--set key=value`, messages that name the key and the mend."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.experiment import Experiment
from pipeline.config.section import Section
from pipeline.core.errors import ConfigError

PATHS_START = "Relative paths start at RADAUG_DATA (the folder data/ where it is not set)."

MOVED = {f"gan.{name}": f"synthesis.{name}" for name in ("samples_per_class", "truncation_psi")}
"""Keys that stood elsewhere before, with their place."""


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment in `path`, with `overrides` of the form `gan.num_images=64`.

    Raises:
        ConfigError: the file is not there, not YAML, or has a key or value that does not fit. The message names the
            file, the key, what was found and what would be accepted.
    """
    merged = _read_with_base(path)
    for override in overrides:
        _apply(merged, override)
    merged.setdefault("name", path.stem)
    return validate_experiment(merged, str(path))


def validate_experiment(values: dict[str, Any], where: str) -> Experiment:
    """Check plain values against the schema; `where` names their origin in the message."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError("\n  ".join([f"{where}: {len(lines)} thing(s) to mend", *lines])) from error


def dump_experiment(experiment: Experiment) -> str:
    """The resolved configuration as YAML; loading it gives the same experiment."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def data_root() -> Path:
    """The folder that relative data paths start from: `RADAUG_DATA`, or `data` in the working directory."""
    return Path(os.environ.get("RADAUG_DATA", "data"))


def _read_with_base(path: Path) -> dict[str, Any]:
    values = _read(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    parent = _read(path.parent / base)
    if "extends" in parent:
        raise ConfigError(f"{path}: its base {base} extends a further file. One level is allowed: copy the keys over.")
    return _merge(parent, values)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such configuration file.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of keys such as 'data:' and 'gan:'.")
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        replaces = both and any(merged[key].get(tag) != value[tag] for tag in ("kind", "family") if tag in value)
        merged[key] = _merge(merged[key], value) if both and not replaces else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write it as key=value, such as gan.num_images=64")
    *parents, last = key.strip().split(".")
    for parent in parents:
        child = values.get(parent)
        values[parent] = dict(child) if isinstance(child, dict) else {}
        values = values[parent]
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error


def _explain(item: ErrorDetails) -> str:
    key = ".".join(_path(item["loc"]))
    if item["type"] == "union_tag_invalid":
        tag = item["ctx"]["discriminator"].strip("'")
        return f"{key}.{tag}: must be one of {item['ctx']['expected_tags']} (found {item['ctx']['tag']!r})"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden" and key in MOVED:
        return f"{key}: is {MOVED[key]} now. Move it there."
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key.{_nearest(str(item['loc'][-1]))}"
    found = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
    return f"{key or 'the experiment'}: {message}{found}"


def _path(loc: tuple[int | str, ...]) -> list[str]:
    """The keys as the user wrote them: below a section that is told apart by a tag, pydantic adds the tag."""
    parts = [str(part) for part in loc]
    if parts[:2] == ["data", "source"] and len(parts) > 3:
        del parts[2]
    return parts


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, _all_keys(), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _all_keys() -> set[str]:
    found: set[str] = set()
    pending: list[type[Section]] = [Section]
    while pending:
        section = pending.pop()
        found |= set(section.model_fields)
        pending.extend(section.__subclasses__())
    return found
