"""The table of GAN families: one file each. A file is found by its name and imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.adversarial.family import Family
from pipeline.config.families import family_module, family_names
from pipeline.config.gan import GanConfig


class _Table(Mapping[str, Family[Any]]):
    """Family by name, in the alphabet's order."""

    def __getitem__(self, name: str) -> Family[Any]:
        family: Family[Any] = family_module(name).FAMILY
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(family_names())

    def __len__(self) -> int:
        return len(family_names())


FAMILIES: Mapping[str, Family[Any]] = _Table()


def learns_from_pool(config: GanConfig) -> bool:
    """Whether the family's recipe reads the stream of unlabelled images."""
    return "unlabelled" in FAMILIES[config.family].recipe(config).streams
