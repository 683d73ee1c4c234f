"""A configuration as YAML with a comment to every key: what `radaug init` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

_WIDTH = 100


def commented_yaml(head: Sequence[str], lines: Sequence[tuple[str, Any, str]]) -> str:
    """A `data:` section, each of its keys below a comment.

    Args:
        head: sentences above it.
        lines: key, value and comment, in order.
    """
    text = [*_comment(head, ""), "data:"]
    for key, value, why in lines:
        text += [*_comment([why], "  "), *(f"  {line}" for line in _dumped(key, value))]
    return "\n".join(text) + "\n"


def _dumped(key: str, value: Any) -> list[str]:
    """A mapping with a mapping in it takes lines of its own; all else stands beside its key."""
    block = isinstance(value, dict) and any(isinstance(one, dict) for one in value.values())
    style = None if block else True
    text = yaml.safe_dump(value, default_flow_style=style, sort_keys=False, allow_unicode=True, width=10_000)
    lines = text.removesuffix("...\n").rstrip().splitlines()
    return [f"{key}:", *(f"  {line}" for line in lines)] if block else [f"{key}: {lines[0]}"]


def _comment(sentences: Sequence[str], indent: str) -> list[str]:
    begin = f"{indent}# "
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(" ".join(sentence.split()), _WIDTH, initial_indent=begin, subsequent_indent=begin)
    ]
