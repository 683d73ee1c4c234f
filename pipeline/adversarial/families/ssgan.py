"""SSGAN: a discriminator of K + 1 classes, labelled and unlabelled images, feature matching (Salimans et al. 2016)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.semi_supervision import SemiSupervisedTurn, class_of_labelled, feature_matching
from pipeline.adversarial.terms import class_of_fake, logistic_discriminator, non_saturating_generator
from pipeline.config.families import SsganConfig
from pipeline.nets.generators import ConvGenerator
from pipeline.nets.semi_supervised import ClassifyingDiscriminator


def nets(config: SsganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = ConvGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    discriminator = ClassifyingDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        width=config.discriminator_width,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: SsganConfig) -> Recipe:
    """The paper's generator knows no classes and has feature matching alone, which collapses within a class on small
    data; here it is asked for a class, answers to the discriminator's classes, and has the adversarial loss beside."""
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("logistic", logistic_discriminator), Weighted("class", class_of_labelled)),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(
            Weighted("non_saturating", non_saturating_generator),
            Weighted("feature_matching", feature_matching, config.feature_matching),
            Weighted("class", class_of_fake, config.asked_class),
        ),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=SemiSupervisedTurn, streams=("labelled", "unlabelled"))


FAMILY = Family(
    name="ssgan",
    dimensions=(2, 3),
    conditions=("class",),
    source="Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016, section 5",
    nets=nets,
    recipe=recipe,
    note="beside the paper's feature matching there are an adversarial loss, for variety, and a class loss on fakes.",
)
