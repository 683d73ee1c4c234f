"""SPADE: an image in the style of z, with the mask in every norm (Park et al., CVPR 2019)."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import hinge_discriminator, hinge_generator
from pipeline.adversarial.translation import MaskTurn, feature_matching
from pipeline.config.families import SpadeConfig
from pipeline.nets.spade import SpadeGenerator
from pipeline.nets.translators import PatchDiscriminator


def nets(config: SpadeConfig, shape: ImageShape) -> dict[str, nn.Module]:
    size: dict[str, Any] = {
        "spatial_size": shape.spatial_size,
        "channels": shape.channels,
        "num_classes": shape.num_classes,
        "num_attributes": shape.num_attributes,
    }
    generator = SpadeGenerator(
        **size,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=max(4, config.generator_width * 3 // 4),
    )
    return {
        "generator": generator,
        "discriminator": PatchDiscriminator(**size, width=config.discriminator_width, masked=True),
    }


def recipe(config: SpadeConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("hinge", hinge_discriminator),),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(
            Weighted("hinge", hinge_generator),
            Weighted("feature_matching", feature_matching, config.feature_matching),
        ),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=MaskTurn)


FAMILY = Family(
    name="spade",
    dimensions=(2, 3),
    conditions=("class", "attributes", "mask"),
    source="Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019",
    nets=nets,
    recipe=recipe,
    needs=("mask",),
    note="New images take the masks of training images.",
)
