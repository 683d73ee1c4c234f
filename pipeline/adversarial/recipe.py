"""How a GAN family trains: which players move, on which terms, how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from pipeline.adversarial.turns import Context, NoiseTurn, Turn
from pipeline.data.batches.streams import Batch, StoredImages


class Term(Protocol):
    """One part of a player's loss: reads a turn, returns a scalar. Pure tensor code; never calls backward or step."""

    def __call__(self, turn: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Weighted:
    """`term` times `weight`, on every `every`-th move only and then times `every` (a lazy regulariser)."""

    name: str
    term: Term
    weight: float = 1.0
    every: int = 1


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam with betas as is usual for GANs, or RMSprop.

    Attributes:
        clip: every weight is cut to [-clip, clip] after a step (Wasserstein GAN).
    """

    lr: float
    betas: tuple[float, float] = (0.0, 0.9)
    kind: Literal["adam", "rmsprop"] = "adam"
    clip: float | None = None


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


class ScheduledTraining(Protocol):
    """What a schedule sees of a training; `figures` are those of the last step, and it may add its own."""

    context: Context
    figures: dict[str, Tensor]
    total_images: int
    num_images: int
    step: int

    @property
    def images_per_step(self) -> int: ...


@runtime_checkable
class LearnsFirst(Protocol):
    """A state that is trained on the training's own images before its first step, and then stands still."""

    def learn(self, images: StoredImages, seed: int) -> None: ...


Schedule = Callable[[ScheduledTraining], None]
"""Acts before every step: growth, the strength of augmentation. What it remembers is in `Recipe.states`."""


@dataclass(frozen=True)
class Recipe:
    """How a family trains.

    Attributes:
        players: in the order of their moves.
        turn: makes what their terms read.
        streams: names of the batches that a turn reads. `labelled`: all classes in turn. `unlabelled`: all images, with
            labels -1. `domain_a`: classes that are not positive, `domain_b`: the positive ones.
        states: what terms and schedules remember, as modules with buffers; terms find them in `turn.context.states`.
            One that `LearnsFirst` is trained before the first step.
        averaged: nets that make images; their running means do so in the end.
    """

    players: tuple[Player, ...]
    turn: Callable[[Context, Mapping[str, Batch], tuple[str, ...]], Turn] = NoiseTurn
    streams: tuple[str, ...] = ("labelled",)
    states: Mapping[str, nn.Module] = field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    averaged: tuple[str, ...] = ("generator",)
