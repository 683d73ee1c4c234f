"""S3GAN: pseudo-labels and rotations for images without labels (Lucic et al., ICML 2019)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.objectives import HINGE
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.semi_supervision import (
    POOL,
    RotationTurn,
    class_of_labelled,
    rotation_of_fake,
    rotation_of_real,
)
from pipeline.config.gan import GanConfig, Weight
from pipeline.nets.semi_supervised import PseudoLabellingDiscriminator


class S3ganConfig(GanConfig):
    """A GAN of few labels, by pseudo-labels and rotations (Lucic et al., ICML 2019).

    Attributes:
        rotation, generator_rotation: weight of the self-supervised task on real images, and on fakes.
        labelling: weight of the head that gives pseudo-labels.
    """

    family: Literal["s3gan"] = "s3gan"
    rotation: Weight = 0.5
    generator_rotation: Weight = 0.2
    labelling: Weight = 0.2


def recipe(config: S3ganConfig) -> Recipe:
    labelling = Weighted("class", class_of_labelled, config.labelling)
    rotation = Weighted("rotation", rotation_of_real, config.rotation)
    generator = [Weighted("rotation", rotation_of_fake, config.generator_rotation)]
    return Recipe(player_pair(config, HINGE, [labelling, rotation], generator), RotationTurn, streams=POOL)


FAMILY = Family(
    S3ganConfig,
    source="Lucic et al., High-Fidelity Image Generation With Fewer Labels, ICML 2019; Chen et al., CVPR 2019",
    nets=net_pair(discriminator=PseudoLabellingDiscriminator),
    recipe=recipe,
    conditions=("class",),
)
