"""pix2pix: an image drawn on a mask, near to the real one and real in its patches (Isola et al., CVPR 2017)."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import logistic_discriminator, non_saturating_generator
from pipeline.adversarial.translation import MaskTurn, pixel_error
from pipeline.config.families import Pix2pixConfig
from pipeline.nets.translators import PatchDiscriminator, UNetGenerator


def nets(config: Pix2pixConfig, shape: ImageShape) -> dict[str, nn.Module]:
    size: dict[str, Any] = {
        "spatial_size": shape.spatial_size,
        "channels": shape.channels,
        "num_classes": shape.num_classes,
        "num_attributes": shape.num_attributes,
    }
    generator = UNetGenerator(
        **size,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=max(4, config.generator_width * 5 // 16),
    )
    return {
        "generator": generator,
        "discriminator": PatchDiscriminator(**size, width=config.discriminator_width, masked=True),
    }


def recipe(config: Pix2pixConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("logistic", logistic_discriminator, 0.5),),
        optimizer=OptimizerSettings(config.discriminator_lr, betas=(0.5, 0.999)),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("logistic", non_saturating_generator), Weighted("l1", pixel_error, config.l1)),
        optimizer=OptimizerSettings(config.generator_lr, betas=(0.5, 0.999)),
    )
    return Recipe(players=(discriminator, generator), turn=MaskTurn)


FAMILY = Family(
    name="pix2pix",
    dimensions=(2, 3),
    conditions=("class", "attributes", "mask"),
    source="Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017",
    nets=nets,
    recipe=recipe,
    needs=("mask",),
    note="Images of one mask differ little, since the L1 term draws them all to one; new images take training masks.",
)
