"""What passes between networks: the condition that goes in, the judgement that comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What an image shall be, or is. `label` is [B] int64."""

    label: Tensor | None = None

    def required_label(self) -> Tensor:
        if self.label is None:
            raise ValueError("this network is conditional on the class; its Condition needs a label [B]")
        return self.label


@dataclass(frozen=True)
class Judgement:
    """A discriminator's output: `logits` [B], large for real; never squashed by a sigmoid."""

    logits: Tensor


class Generator(Protocol):
    """(z [B, latent_dim], condition) -> images [B, C, *spatial] in [-1, 1]."""

    latent_dim: int

    def __call__(self, z: Tensor, condition: Condition) -> Tensor: ...


class Discriminator(Protocol):
    """(images [B, C, *spatial], condition) -> Judgement."""

    def __call__(self, images: Tensor, condition: Condition) -> Judgement: ...


def condition_of(label: Tensor) -> Condition:
    return Condition(label=label.to(torch.int64))
