"""Multilayer perceptrons as generator and discriminator: an image is one long vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.nets.conditions import Condition, ConditionCode, Judgement, recompute
from pipeline.nets.discriminators import activated
from pipeline.nets.sizes import ImageShape

_UNITS_PER_WIDTH = 64
_MOST_UNITS = 2048
_LARGEST_LAYER = 2**24
_SLOPE = 0.2


def hidden_units(width: int, values: int) -> int:
    """Units of a hidden layer of a perceptron whose images have `values` numbers.

    64 for each of `width`, but at most 2,048, and at most so many that the layer at the image has 2^24 weights: a
    pair of nets for 32 x 32 x 32 voxels (512 units) then takes about 0.7 GiB of weights, gradients, moments and means.
    """
    return max(1, min(width * _UNITS_PER_WIDTH, _MOST_UNITS, _LARGEST_LAYER // values))


class PerceptronGenerator(nn.Module):
    """Two hidden layers of rectifiers: (z [B, latent_dim], condition) -> [B, C, *spatial] in [-1, 1].

    Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014; the condition's code is joined to z as in
    Mirza & Osindero, "Conditional Generative Adversarial Nets", 2014.

    Args:
        width: sets the hidden layers' units, see `hidden_units`.
    """

    def __init__(self, shape: ImageShape, latent_dim: int, embedding_dim: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.image = (shape.channels, *shape.spatial_size)
        self.code = ConditionCode(shape.num_classes, embedding_dim, shape.num_attributes)
        units = hidden_units(width, math.prod(self.image))
        self.checkpointing = False
        self.hidden = nn.ModuleList([nn.Linear(latent_dim + self.code.size, units), nn.Linear(units, units)])
        self.last = nn.Linear(units, math.prod(self.image))

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        features = torch.cat([z, self.code(condition)], dim=1)
        for layer in self.hidden:
            features = recompute(self.checkpointing, activated, layer, features, 0.0)
        return torch.tanh(self.last(features)).view(-1, *self.image)


class PerceptronDiscriminator(nn.Module):
    """Two hidden layers of leaky rectifiers on the image's values joined to the condition's code.

    Args:
        width: sets the hidden layers' units, see `hidden_units`.
    """

    def __init__(self, shape: ImageShape, embedding_dim: int, width: int) -> None:
        super().__init__()
        values = shape.channels * math.prod(shape.spatial_size)
        units = hidden_units(width, values)
        self.code = ConditionCode(shape.num_classes, embedding_dim, shape.num_attributes)
        self.checkpointing = False
        self.hidden = nn.ModuleList([nn.Linear(values + self.code.size, units), nn.Linear(units, units)])
        self.score = nn.Linear(units, 1)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        features = torch.cat([images.flatten(1), self.code(condition)], dim=1)
        for layer in self.hidden:
            features = recompute(self.checkpointing, activated, layer, features, _SLOPE)
        return Judgement(logits=self.score(features).squeeze(1))
