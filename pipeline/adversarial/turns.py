"""A turn: what ONE move of ONE player needs, made once and lazily."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.data.augmentation import Augmenter
from pipeline.data.streams import Batch
from pipeline.nets.conditions import Condition, Judgement, condition_of


@dataclass(frozen=True)
class Table:
    """What all turns of a training share: nets, augmentation, random numbers and the precision to compute in."""

    nets: Mapping[str, nn.Module]
    augment: Augmenter
    random: torch.Generator
    autocast: AbstractContextManager[None]


class NoiseTurn:
    """A turn of a noise-to-image GAN. Nothing in it outlives the move: the next optimiser step makes it stale.

    Fakes get a graph only when the generator moves. Real and fake images are augmented by the same policy, each on
    its own draw, in float32 outside autocast.
    """

    def __init__(self, table: Table, batch: Batch, trains: tuple[str, ...]) -> None:
        self.table, self.batch, self.trains = table, batch, trains
        self.condition: Condition = condition_of(batch.label)

    @cached_property
    def fake(self) -> Tensor:
        """Generated images [B, C, *spatial], float32, of the batch's classes."""
        generator = self.table.nets["generator"]
        shape = (len(self.batch.label), int(generator.latent_dim))  # type: ignore[arg-type]
        z = torch.randn(shape, generator=self.table.random, device=self.batch.label.device)
        with torch.set_grad_enabled("generator" in self.trains), self.table.autocast:
            images: Tensor = generator(z, self.condition)
        return images.float()

    @cached_property
    def _both_logits(self) -> tuple[Tensor, Tensor]:
        images = torch.cat([self.batch.images, self.fake])
        label = torch.cat([self.batch.label, self.batch.label])
        real, fake = self._judge(images, condition_of(label)).logits.chunk(2)
        return real, fake

    @property
    def real_logits(self) -> Tensor:
        """[B], from one pass over real and fake together."""
        return self._both_logits[0]

    @cached_property
    def fake_logits(self) -> Tensor:
        """[B]; without the real images when the generator moves."""
        if "discriminator" in self.trains:
            return self._both_logits[1]
        return self._judge(self.fake, self.condition).logits

    def _judge(self, images: Tensor, condition: Condition) -> Judgement:
        augmented = self.table.augment(images, self.table.random)
        with self.table.autocast:
            judgement = self.table.nets["discriminator"](augmented, condition)
        return Judgement(logits=judgement.logits.float())
