"""Turns and terms of families that learn from few labelled and many unlabelled images."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from pipeline.adversarial.turns import NoiseTurn
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.semi_supervised import PseudoLabellingDiscriminator, rotated

POOL = ("labelled", "unlabelled")
"""The streams of these families."""


class SemiSupervisedTurn(NoiseTurn):
    """Fakes of the labelled batch's classes; the real images that they compete with come from the unlabelled one."""

    @property
    def unlabelled(self) -> Batch:
        return self.batches["unlabelled"]

    @cached_property
    def real_seen(self) -> Tensor:
        return self.augmented(self.unlabelled.images)

    @cached_property
    def real_judgement(self) -> Judgement:
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self.judge(self.real_seen, Condition(label=self.unlabelled.label))

    @cached_property
    def labelled_judgement(self) -> Judgement:
        return self.judge(self.augmented(self.batch.images), self.condition)


class RotationTurn(SemiSupervisedTurn):
    """Turns images by multiples of 90 degrees, for a discriminator that must tell by how many."""

    @cached_property
    def real_rotation(self) -> tuple[Tensor, Tensor]:
        """Logits [B, rotations] of unlabelled images, and the rotations [B] that were made."""
        return self._rotation(self.unlabelled.images)

    @cached_property
    def fake_rotation(self) -> tuple[Tensor, Tensor]:
        return self._rotation(self.fake)

    def _rotation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        discriminator = self.context.nets["discriminator"]
        assert isinstance(discriminator, PseudoLabellingDiscriminator)
        quarters = discriminator.quarters
        choice = self.context.draws.randint(len(quarters), (len(images),))
        seen = self.augmented(rotated(images, choice, quarters))
        with self.context.autocast:
            logits = discriminator.rotation_logits(seen)
        return logits.float(), choice


def class_of_labelled(turn: SemiSupervisedTurn) -> Tensor:
    """Cross-entropy of the discriminator's classes on labelled images."""
    class_logits = turn.labelled_judgement.class_logits
    assert class_logits is not None and turn.condition.label is not None
    return cross_entropy(class_logits, turn.condition.label)


def feature_matching(turn: SemiSupervisedTurn) -> Tensor:
    """Squared distance of the mean features of real images and fakes, class by class, mean over both, in units of the
    real features' variance (a discriminator is free in how large it makes them).

    Salimans et al. (NeurIPS 2016) match one mean over all images. Here a fake counts for the class it was asked for, a
    real image for each class by its probability: unlabelled images of unlike frequencies would else pull every class.
    With one class, or a discriminator that does not know yet, it is theirs.
    """
    real, fake = turn.real_judgement, turn.fake_judgement
    assert real.class_logits is not None and turn.condition.label is not None
    shares = one_hot(turn.condition.label, real.class_logits.shape[1]).to(fake.logits.dtype)
    distance = _class_means(real.features[0], real.class_logits.softmax(dim=1)) - _class_means(fake.features[0], shares)
    variance = real.features[0].detach().var().clamp(min=1e-12)
    asked = (shares.sum(dim=0) > 0).to(shares.dtype)
    return (distance.square().mean(dim=1) * asked).sum() / asked.sum() / variance


def _class_means(features: Tensor, shares: Tensor) -> Tensor:
    """[K, numbers]: means of features [B, ...], where an image counts for each class by its share [B, K]."""
    return shares.T @ features.flatten(1) / shares.sum(dim=0).clamp(min=1e-6)[:, None]


def rotation_of_real(turn: RotationTurn) -> Tensor:
    """Cross-entropy of the rotation head on real images (Chen et al., "Self-Supervised GANs", CVPR 2019)."""
    return cross_entropy(*turn.real_rotation)


def rotation_of_fake(turn: RotationTurn) -> Tensor:
    """The same on fakes: the generator makes images whose rotation can be told."""
    return cross_entropy(*turn.fake_rotation)
