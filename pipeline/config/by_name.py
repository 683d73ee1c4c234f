"""What is found by its name when it is asked for: a GAN family, an anomaly detector, each a file of a package above.

The schema may not import the rooms above it. This is the one hook by which it reaches there, and only the module that
is asked for is imported: `f-anogan` is the module `f_anogan`.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Generic, TypeVar

Facts = TypeVar("Facts")


def names_in(package: str) -> tuple[str, ...]:
    """The names of all modules of `package` that do not begin with `_`, in the alphabet's order; none is imported."""
    found = pkgutil.iter_modules(import_module(package).__path__)
    return tuple(sorted(module.name.replace("_", "-") for module in found if not module.name.startswith("_")))


def module_named(package: str, name: str) -> ModuleType:
    """The module of `package` that is called `name`.

    Raises:
        KeyError: there is none.
    """
    if name not in names_in(package):
        raise KeyError(name)
    return import_module(f"{package}.{name.replace('-', '_')}")


def or_nearest(name: str, known: Sequence[str]) -> str:
    """What an error about an unknown name ends with: the nearest right one, if one is near."""
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""


def nearest(name: str, known: Sequence[str]) -> str:
    """The one of `known` that is most like `name`, whatever the letters' case; empty where none is."""
    folded = {one.casefold(): one for one in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return folded[close[0]] if close else ""


class ByName(Mapping[str, Facts], Generic[Facts]):
    """What the modules of `package` say of themselves, by name, in the alphabet's order; each read when it is asked
    for.

    Args:
        says: the name in each module that holds it.
    """

    def __init__(self, package: str, says: str) -> None:
        self.package, self.says = package, says

    def __getitem__(self, name: str) -> Facts:
        facts: Facts = getattr(module_named(self.package, name), self.says)
        return facts

    def __iter__(self) -> Iterator[str]:
        return iter(names_in(self.package))

    def __len__(self) -> int:
        return len(names_in(self.package))
