"""YAML to `Experiment`: one-level `extends`, `--set key=value`, messages that name the key and the mend."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.by_name import nearest, or_nearest
from pipeline.config.experiment import Experiment
from pipeline.config.section import Section
from pipeline.config.yaml_text import parse_yaml, read_yaml
from pipeline.core.errors import ConfigError

PATHS_START = "Relative paths start at RADAUG_DATA (data/ where it is not set), else at the configuration's folder."
logger = logging.getLogger(__name__)

_MOVED_TO_SYNTHESIS = ("samples_per_class", "truncation_psi")
"""Keys that stood under `gan:` before."""


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment in `path`, with `overrides` of the form `gan.num_images=64`.

    Raises:
        ConfigError: the file is not there, not YAML, or has a key or value that does not fit. The message names the
            file, the key, what was found and what would be accepted.
    """
    merged = _read_with_base(path)
    for override in overrides:
        _apply(merged, override)
    _move_to_synthesis(merged, path)
    _place_paths(merged, path.parent)
    plain = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    merged.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "run")
    return validate_experiment(merged, str(path))


def _move_to_synthesis(values: dict[str, Any], path: Path) -> None:
    """Take keys of older configurations to their place, and say so.

    Raises:
        ConfigError: a key stands in both places.
    """
    gan, synthesis = values.get("gan"), values.get("synthesis", {})
    if not isinstance(gan, dict) or not isinstance(synthesis, dict):
        return
    for name in (name for name in _MOVED_TO_SYNTHESIS if name in gan):
        if name in synthesis:
            raise ConfigError(f"{path}: {name} stands under gan: and under synthesis:. Remove gan.{name}.")
        logger.warning("%s: gan.%s is synthesis.%s now; it is taken from there. Move it.", path, name, name)
        synthesis = {**synthesis, name: gan[name]}
        gan = {key: value for key, value in gan.items() if key != name}
    values["gan"] = gan
    if synthesis:
        values["synthesis"] = synthesis


def require_data(experiment: Experiment, path: Path) -> None:
    """Refuse an experiment whose data are not there, naming every place that was looked in.

    Args:
        path: the configuration's file.

    Raises:
        ConfigError: as above.
    """
    for where, source in experiment.data.every_source.items():
        for key in ("path", "labels"):
            name = getattr(source, key, "")
            if not name or (data_root() / name).exists():
                continue
            if Path(name).is_absolute():
                raise ConfigError(f"{where}.{key}: {name} is not there. Check the path.")
            set_so = "RADAUG_DATA" if "RADAUG_DATA" in os.environ else "where data lie, as RADAUG_DATA is not set"
            raise ConfigError(
                f"{where}.{key}: {name} is neither in {data_root().absolute()} ({set_so}) nor in "
                f"{path.parent.absolute()} (the configuration's folder). Check the path, or set RADAUG_DATA to the "
                "folder that it starts from."
            )


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
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends must be the name of one file, such as base.yaml (found {base!r})")
    parent = _read(path.parent / base)
    _place_paths(parent, (path.parent / base).parent)
    if "extends" in parent:
        raise ConfigError(f"{path}: its base {base} extends a further file. One level is allowed: copy the keys over.")
    return _merge(parent, values)


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
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
    values[last] = parse_yaml(text, f"--set {override}")


def _place_paths(values: dict[str, Any], folder: Path) -> None:
    """Make paths of data absolute that are not in the data folder, but beside the configuration, in `folder`; the
    register, which need not be there yet, is always beside it."""
    data = values.get("data")
    external, sites = (data.get(name) if isinstance(data, dict) else None for name in ("external", "sources"))
    sections = {"data.source": data, "data.external.source": external, "quality": values}
    if isinstance(sites, dict):
        sections |= {f"data.sources.{name}.source": site for name, site in sites.items()}
    for where, section in sections.items():
        inner = section.get(where.rpartition(".")[2]) if isinstance(section, dict) else None
        for key in ("path", "labels", "extractor"):
            if isinstance(inner, dict) and isinstance(inner.get(key), str) and inner[key]:
                inner[key] = _placed(inner[key], folder, f"{where}.{key}")
    if isinstance(data, dict) and isinstance(data.get("patient_register"), str) and data["patient_register"]:
        data["patient_register"] = os.path.abspath(folder / Path(data["patient_register"]).expanduser())


def _placed(name: str, folder: Path, where: str) -> str:
    given = Path(name).expanduser()
    own = Path(os.path.abspath(folder / given))
    standard = (data_root() / given).absolute()
    if given.is_absolute() or not own.exists():
        return str(given) if name.startswith("~") else name
    if not standard.exists():
        return str(own)
    if not standard.samefile(own):
        logger.warning("%s: %s and %s are both there. The first one is taken.", where, standard, own)
    return name


def _explain(item: ErrorDetails) -> str:
    key = ".".join(_path(item["loc"]))
    if item["type"] == "union_tag_invalid":
        tag, found = item["ctx"]["discriminator"].strip("'"), str(item["ctx"]["tag"])
        return f"{key}.{tag}: {_one_of(item['ctx']['expected_tags'], found)} (found {found!r})"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        message = _one_of(item["ctx"]["expected"], str(item["input"]))
    if item["type"] == "extra_forbidden":
        return f"{key}: there is no such key.{_nearest_key(str(item['loc'][-1]))}"
    if item["type"] == "string_type":
        key = ".".join(_path(item["loc"][:-1] if item["loc"][-1] == "[key]" else item["loc"]))
        message = _unquoted(item["input"]) or message
    if key == "name" and item["type"] == "string_pattern_mismatch":
        message = "may hold at most 100 letters, digits, '.', '_' and '-', and begins with a letter or digit"
    found = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
    return f"{key or 'the experiment'}: {message}{found}"


def _one_of(expected: str, found: str) -> str:
    """What would be accepted, and the nearest of it; pydantic gives `'pad' or 'stretch'`."""
    names = re.findall(r"'([^']*)'", expected)
    return f"must be one of {', '.join(names) or expected}{or_nearest(found, names)}"


def _unquoted(value: object) -> str:
    """The mend for a name that YAML took for something else; empty for lists and mappings."""
    if isinstance(value, bool):
        return "put the name in quotes: YAML takes an unquoted yes, no, on, off, true or false for a truth value"
    if isinstance(value, int | float):
        return f"put the name in quotes, such as '{value}': YAML takes it for a number"
    if value is None:
        return "put the name in quotes: YAML takes an unquoted null, ~ or an empty place for no value"
    return ""


def _path(loc: tuple[int | str, ...]) -> list[str]:
    """The keys as the user wrote them: below a section that is told apart by a tag, pydantic adds the tag."""
    parts = [str(part) for part in loc]
    if parts[:2] == ["data", "source"] and len(parts) > 3:
        del parts[2]
    return parts


def _nearest_key(name: str) -> str:
    close = nearest(name, sorted(_all_keys()))
    return f" Did you mean {close}?" if close else ""


def _all_keys() -> set[str]:
    found: set[str] = set()
    pending: list[type[Section]] = [Section]
    while pending:
        section = pending.pop()
        found |= set(section.model_fields)
        pending.extend(section.__subclasses__())
    return found
