"""Discriminators that learn from few labels: one with a class for fakes, one with pseudo-labels and rotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.discriminators import ProjectionDiscriminator, StridedTrunk
from pipeline.nets.sizes import ImageShape


class ClassifyingDiscriminator(nn.Module):
    """Tells K classes and fakes apart: a classifier of K + 1 classes whose logit for "fake" is held at 0.

    Softmax has one freedom too many, so K logits l are enough: p(real) = Z / (Z + 1) with Z = Σ exp l (Salimans et al.,
    "Improved Techniques for Training GANs", NeurIPS 2016, section 5). The judgement's logit is log Z, its class logits
    are l, its feature is the last grid [B, features, *grid]. The condition is not read: labels need not be known.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        self.trunk = StridedTrunk(spatial_size=shape.spatial_size, channels=shape.channels, width=width)
        self.classify = spectral_norm(nn.Linear(self.trunk.features, shape.num_classes))

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        del condition
        grid = self.trunk(images)
        class_logits = self.classify(grid.flatten(2).sum(dim=2))
        return Judgement(logits=class_logits.logsumexp(dim=1), class_logits=class_logits, features=(grid,))


class PseudoLabellingDiscriminator(ProjectionDiscriminator):
    """A projection discriminator with two more heads: one that guesses the class, one that guesses a rotation.

    An image without a label (-1) is judged under the class that the first head finds most likely (Lucic et al.,
    "High-Fidelity Image Generation With Fewer Labels", ICML 2019, section 3.2).
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__(shape, width)
        self.quarters = quarter_turns(shape.spatial_size)
        self.classify = spectral_norm(nn.Linear(self.trunk.features, shape.num_classes))
        self.rotation = spectral_norm(nn.Linear(self.trunk.features, len(self.quarters)))

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        pooled = self._pooled(images)
        class_logits = self.classify(pooled)
        label = known_or_guessed(condition.required_label(), class_logits)
        logits = self.score(pooled).squeeze(1) + self.projection(pooled, replace(condition, label=label))
        return Judgement(logits=logits, class_logits=class_logits)

    def rotation_logits(self, images: Tensor) -> Tensor:
        """[B, rotations]: by which of `quarters` an image is turned."""
        return self.rotation(self._pooled(images))

    def _pooled(self, images: Tensor) -> Tensor:
        return self.trunk(images).flatten(2).sum(dim=2)


def known_or_guessed(label: Tensor, class_logits: Tensor) -> Tensor:
    """Labels [B] with each unknown one (-1) replaced by the most likely class; no gradient passes."""
    return torch.where(label < 0, class_logits.detach().argmax(dim=1), label)


def quarter_turns(spatial_size: Sequence[int]) -> tuple[int, ...]:
    """The quarter turns that keep an image's size: all four where its first two sides are equal, else 0 and 2."""
    return (0, 1, 2, 3) if spatial_size[0] == spatial_size[1] else (0, 2)


def rotated(images: Tensor, choice: Tensor, quarters: Sequence[int]) -> Tensor:
    """Each image turned in the plane of its first two spatial axes (in 3D about the third, the axial one).

    Args:
        images: [B, C, *spatial].
        choice: [B], index into `quarters`.
        quarters: turns by 90 degrees from the first axis towards the second, as `torch.rot90` counts them.
    """
    turned = torch.stack([torch.rot90(images, quarter, dims=(2, 3)) for quarter in quarters])
    return turned[choice, torch.arange(len(images), device=images.device)]
