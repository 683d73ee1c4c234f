"""What is found by its name when it is asked for: a GAN family, an anomaly detector, each a file of a package above.

The schema may not import the rooms above it. This is the one hook by which it reaches there, and only the module that
is asked for is imported: `f-anogan` is the module `f_anogan`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType


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
