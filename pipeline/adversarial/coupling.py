"""The turn of coupled GANs: one z makes a pair of images, one in each of two domains."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pipeline.adversarial.turns import NoiseTurn
from pipeline.core.errors import ConfigError
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition
from pipeline.nets.coupled import CoupledGenerator
from pipeline.nets.sizes import ImageShape

DOMAINS = ("domain_a", "domain_b")


def two_domains(shape: ImageShape) -> ImageShape:
    """`shape` as it is, whose positive classes are domain b.

    Raises:
        ConfigError: one of the two domains has no class.
    """
    if not 0 < len(set(shape.positive)) < shape.num_classes:
        raise ConfigError(
            "data.positive: a family of two domains needs classes on both sides; the positive classes are domain b, "
            "all others domain a, as in classes: [cyst, metastasis], positive: [metastasis]."
        )
    return shape


def condition_of_batch(batch: Batch) -> Condition:
    return Condition(label=batch.label, mask=batch.mask, attributes=batch.attributes)


class CoupledTurn(NoiseTurn):
    """Images of both domains behind each other, domain a first; the fakes of one row in each half share their z.

    Logits are [2 B], so a mean-reduced term is half the sum over the domains of Liu & Tuzel, NeurIPS 2016.
    """

    @cached_property
    def conditions(self) -> tuple[Condition, Condition]:
        return condition_of_batch(self.batches["domain_a"]), condition_of_batch(self.batches["domain_b"])

    @cached_property
    def condition(self) -> Condition:
        first, second = (vars(condition) for condition in self.conditions)
        both = {name: None if first[name] is None else torch.cat([first[name], second[name]]) for name in first}
        return Condition(**both)

    @cached_property
    def fake(self) -> Tensor:
        """Both images of every pair [2 B, C, *spatial], float32."""
        generator = self.context.nets["generator"]
        assert isinstance(generator, CoupledGenerator)
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            pair = generator.pair(self.z, *self.conditions)
        return torch.cat(pair).float()

    @cached_property
    def real_seen(self) -> Tensor:
        return self.augmented(torch.cat([self.batches[name].images for name in DOMAINS]))
