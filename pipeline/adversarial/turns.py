"""A turn: what ONE move of ONE player needs, made once and lazily."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition, Generator, Judgement, as_discriminator, as_generator


@dataclass(frozen=True)
class Context:
    """What all turns of a training share: nets, augmentation, random numbers, precision, and what is remembered."""

    nets: Mapping[str, nn.Module]
    augment: Augmenter
    draws: Draws
    autocast: AbstractContextManager[None]
    states: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def generator(self) -> Generator:
        return as_generator(self.nets["generator"])


class Turn:
    """Batches, nets and random numbers of a move. Nothing in it outlives the move: the next step makes it stale."""

    def __init__(self, context: Context, batches: Mapping[str, Batch], trains: tuple[str, ...]) -> None:
        self.context, self.batches, self.trains = context, batches, trains

    @property
    def batch(self) -> Batch:
        """The first stream's batch."""
        return next(iter(self.batches.values()))

    def augmented(self, images: Tensor) -> Tensor:
        """Real or fake images as the discriminator sees them: one policy for both, each on its own draw, float32."""
        return self.context.augment(images.float(), self.context.draws)

    def judge(self, images: Tensor, condition: Condition, discriminator: str = "discriminator") -> Judgement:
        """A discriminator's float32 judgement of images that are already augmented."""
        with self.context.autocast:
            return as_discriminator(self.context.nets[discriminator])(images, condition).float()

    def figures(self) -> dict[str, Tensor]:
        """Scalars to log, beside the terms; called after the move."""
        return {}


class NoiseTurn(Turn):
    """A turn of a noise-to-image GAN. Fakes get a graph only when the generator moves."""

    @cached_property
    def condition(self) -> Condition:
        batch = self.batch
        return Condition(label=batch.label, mask=batch.mask, attributes=batch.attributes)

    @cached_property
    def z(self) -> Tensor:
        """Standard normal [B, latent_dim]."""
        return self.context.draws.randn((len(self.batch.label), self.context.generator.latent_dim))

    @cached_property
    def fake(self) -> Tensor:
        """Generated images [B, C, *spatial], float32, of the batch's classes."""
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            return self.context.generator(self.z, self.condition).float()

    @cached_property
    def real_seen(self) -> Tensor:
        """The batch's images, augmented."""
        return self.augmented(self.batch.images)

    @cached_property
    def fake_seen(self) -> Tensor:
        """The fakes, augmented."""
        return self.augmented(self.fake)

    @cached_property
    def real_judgement(self) -> Judgement:
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self.judge(self.real_seen, self.condition)

    @cached_property
    def fake_judgement(self) -> Judgement:
        return self.judge(self.fake_seen, self.condition)

    @property
    def real_logits(self) -> Tensor:
        return self.real_judgement.logits

    @property
    def fake_logits(self) -> Tensor:
        return self.fake_judgement.logits

    def figures(self) -> dict[str, Tensor]:
        """Mean logits, and the mean sign of the real ones, when the discriminator moved."""
        if "discriminator" not in self.trains:
            return {}
        real, fake = self.real_logits.detach(), self.fake_logits.detach()
        return {"real_logits": real.mean(), "fake_logits": fake.mean(), "real_sign": real.sign().mean()}
