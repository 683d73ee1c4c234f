"""Every key of the configuration, from the schema: `python -m pipeline.config.reference > docs/configuration.md`.

A key's meaning stands in the schema: under `Attributes:` in its section's docstring, or in the text below it. A test
keeps the page equal to what this makes, and every key described.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic.fields import FieldInfo

from pipeline.config.experiment import Experiment
from pipeline.config.families import DEFAULT_FAMILY, family_module, family_names
from pipeline.config.gan import GanConfig
from pipeline.config.section import Section

_HEAD = """# Every key of the configuration

Made from the schema (`pipeline/config`) by `python -m pipeline.config.reference`; a test keeps it so. A key that is not
in your file has its default. A wrong key or value is refused with the nearest right one. `--set KEY=VALUE` sets one for
a single run, such as `--set gan.family=wgan-gp`. Shares are from 0 to 1: a margin of 0.02 is 2 points."""
_SIGNS = ((annotated_types.Ge, "ge", "≥"), (annotated_types.Gt, "gt", ">"), (annotated_types.Le, "le", "≤"),
          (annotated_types.Lt, "lt", "<"))  # fmt: skip


def reference() -> str:
    """The whole page."""
    parts = [_HEAD]
    for path, section in _sections("", Experiment):
        parts += [_heading(path or "The experiment", section, 2), _table(section)]
        if section is GanConfig:
            parts += [part for name in family_names() for part in _family(name)]
    return "\n\n".join(parts) + "\n"


def undescribed() -> list[str]:
    """Keys without a word on their meaning."""
    sections = dict(_sections("", Experiment))
    families = {f"gan ({name})": family_module(name).FAMILY.config for name in family_names()}
    return [
        f"{path}.{name}".strip(".")
        for path, section in {**sections, **families}.items()
        for name in section.model_fields
        if not meaning(section, name) and name not in ("kind", "family")
    ]


def _sections(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """A section and those below it, each with the key that it stands under."""
    yield path, section
    for name, field in section.model_fields.items():
        for inner in _inner(field.annotation):
            kind = inner.model_fields.get("kind")
            tags = get_args(kind.annotation) if kind else ()
            tag = f" (kind: {tags[0]})" if len(tags) == 1 else ""
            if name != "source" or not path.endswith(("external", "sources")):
                yield from _sections(f"{path}.{name}{tag}".strip("."), inner)


def _inner(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [one for part in get_args(annotation) for one in _inner(part)]


def _heading(title: str, section: type[Section], level: int) -> str:
    words = inspect.cleandoc(section.__doc__ or "").split("\n\nAttributes:")[0].replace("\n", " ")
    name = f"`{title}`" if title[0].islower() else title
    return f"{'#' * level} {name}\n\n{words}"


def _family(name: str) -> list[str]:
    """What a family has beside the keys of all, and where its defaults are others."""
    config: type[GanConfig] = family_module(name).FAMILY.config
    common = GanConfig.model_fields
    own = [key for key, field in config.model_fields.items()
           if key != "family" and (key not in common or _default(field) != _default(common[key]))]  # fmt: skip
    title = f"gan (family: {name})" + (", the default" if name == DEFAULT_FAMILY else "")
    return [_heading(title, config, 3), _table(config, own) if own else "No keys of its own."]


def _table(section: type[Section], names: list[str] | None = None) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name in names if names is not None else section.model_fields:
        field = section.model_fields[name]
        cells = (f"`{name}`", _type(field), _default(field), meaning(section, name))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _type(field: FieldInfo) -> str:
    return _spoken(field.annotation, field.metadata)


def _spoken(annotation: Any, metadata: Any = ()) -> str:
    """A type and its bounds in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is GanConfig:
        return "section"
    if origin is Annotated:
        return _spoken(inner[0], (*metadata, *inner[1:]))
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin in (Union, types.UnionType):
        if all(isinstance(one, type) and issubclass(one, Section) for one in inner):
            return "section"
        return ", or ".join(_spoken(one) for one in inner)
    if origin is tuple:
        many = len(inner) == 2 and inner[1] is ...
        return f"list of {_spoken(inner[0])}" if many else f"[{', '.join(map(_spoken, inner))}]"
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return f"mapping of {_spoken(inner[0])} to {_spoken(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    names = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", type(None): "`null`"}
    return " ".join([names.get(annotation, str(annotation)), *_bounds(metadata)])


def _bounds(metadata: Any) -> Iterator[str]:
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from _bounds(one.metadata)
        for kind, name, sign in _SIGNS:
            if isinstance(one, kind):
                yield f"{sign} {getattr(one, name):g}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if not field.default_factory else None
    if field.default_factory:
        return "the default family's" if _type(field) == "section" else "none"
    if isinstance(value, Section):
        return "as below"
    if value in ("", (), None):
        return {"": "empty", (): "none", None: "`null`"}[value]
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10_000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def meaning(section: type[Section], name: str) -> str:
    """What a key means, from the nearest class that says it; empty where none does."""
    for one in section.__mro__:
        if found := _meanings(one).get(name):
            return found
    return ""


@cache
def _meanings(section: type) -> dict[str, str]:
    """From `Attributes:` of the docstring, and from texts below the keys."""
    found: dict[str, str] = {}
    _, _, listed = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    for names, text in re.findall(r"^    ([a-z_0-9, ]+): ((?:.*\n?)(?:^ {8,}.*\n?)*)", listed, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    if not issubclass(section, Section):
        return found
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    for key, below in zip(body.body, body.body[1:], strict=False):
        text = below.value if isinstance(below, ast.Expr) else None
        name = key.target if isinstance(key, ast.AnnAssign) else None
        if isinstance(name, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[name.id] = " ".join(text.value.split())
    return found


if __name__ == "__main__":
    print(reference(), end="")
