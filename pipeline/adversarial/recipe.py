"""A GAN family is a recipe: which players move, on which terms, how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from pipeline.adversarial.turns import NoiseTurn


class Term(Protocol):
    """One part of a player's loss: reads a turn, returns a scalar. Pure tensor code; never calls backward or step."""

    def __call__(self, turn: NoiseTurn) -> Tensor: ...


@dataclass(frozen=True)
class Weighted:
    """`term` times `weight`."""

    name: str
    term: Term
    weight: float = 1.0


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam; betas as is usual for GANs."""

    lr: float
    betas: tuple[float, float] = (0.0, 0.9)


@dataclass(frozen=True)
class Player:
    """Nets that move together.

    Attributes:
        trains: names of the nets whose weights it moves; all others are frozen during its turn.
        repeats: moves a step, each on a fresh batch.
    """

    name: str
    trains: tuple[str, ...]
    terms: tuple[Weighted, ...]
    optimizer: OptimizerSettings
    repeats: int = 1


@dataclass(frozen=True)
class Recipe:
    """The players in the order of their moves; `turn` makes what their terms read."""

    players: tuple[Player, ...]
    turn: type[NoiseTurn]


@dataclass(frozen=True)
class ImageShape:
    """What the nets must fit: *spatial, channels and classes of a data set."""

    spatial_size: tuple[int, ...]
    channels: int
    num_classes: int


@dataclass(frozen=True)
class Family:
    """An entry of the table of families.

    Attributes:
        nets: (config, shape) -> nets by name; "generator" and, where there is one, "discriminator".
        recipe: config -> Recipe.
    """

    name: str
    dimensions: tuple[int, ...]
    conditions: tuple[str, ...]
    source: str
    nets: Any
    recipe: Any

    def build(self, config: Any, shape: ImageShape) -> tuple[Mapping[str, nn.Module], Recipe]:
        return self.nets(config, shape), self.recipe(config)
