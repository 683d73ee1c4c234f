"""YAML as people write it: what it would pass over or take for something else is named with its line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import ConfigError
from pipeline.core.text import decode, foreign_kind

_INT, _FLOAT, _DATE = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))
_NO_SPACE = re.compile(r"^[ ]*([\t\u00a0\u2000-\u200b\u3000])")
"""What looks like a space at the beginning of a line, and is none to YAML."""


class _Loader(yaml.SafeLoader):
    """Numbers as in YAML 1.2: `2e-4` is one, `010` is ten, `12:30` and dates are text."""


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)
_Loader.add_constructor(_INT, _whole_number)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, in any usual encoding.

    Raises:
        ConfigError: it is not there, not YAML, or gives a key twice; the message names the lines and the mend.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such configuration file.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if kind := foreign_kind(raw):
        raise ConfigError(f"{path}: is not a configuration but {kind}.")
    try:
        text, _ = decode(raw)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not valid YAML: it is no UTF-8 text. Save it as UTF-8.") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of `text`; `where` names its origin in the message.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_misread_keys(node, where, (), set())
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_explained(error, text, where)) from error
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(f"{where}: is not valid YAML: its brackets are nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from error


def _refuse_misread_keys(node: yaml.Node, where: str, above: tuple[str, ...], seen: set[int]) -> None:
    """YAML lets the last of two equal keys win, and takes a special space for a letter: errors here, at any depth."""
    if id(node) in seen:  # an alias: its keys have been looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, child in enumerate(node.value):
            _refuse_misread_keys(child, where, (*above, str(place)), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[Hashable, int] = {}
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if not key.style and key.value != key.value.strip():
            raise ConfigError(f"{where}: is not valid YAML: {_indented(line, _NO_SPACE.match(key.value))}")
        if name in lines:
            raise ConfigError(
                f"{where}: {'.'.join((*above, key.value))} is given twice, in lines {lines[name]} and {line}. Keep one "
                "of them."
            )
        lines[name] = line
        _refuse_misread_keys(child, where, (*above, key.value), seen)


def _explained(error: yaml.MarkedYAMLError, text: str, where: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"{where}: is not valid YAML: {error.problem}"
    lines = text.splitlines()
    for number in (mark.line, mark.line - 1):
        found = _NO_SPACE.match(lines[number]) if 0 <= number < len(lines) else None
        if found:
            return f"{where}: is not valid YAML: {_indented(number + 1, found)}"
    return f"{where}: is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {error.problem}."


def _indented(line: int, found: re.Match[str] | None) -> str:
    what = "a special space" if found is None else "a tab" if found[1] == "\t" else f"the space U+{ord(found[1]):04X}"
    return f"line {line} has {what} for plain spaces: indent it as the lines around it."
