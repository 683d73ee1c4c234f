"""DP-MERF: no discriminator; images are drawn towards a noisy mean of random features (Harder et al., AISTATS 2021)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from pipeline.adversarial.family import Family, Nets
from pipeline.adversarial.private.embedding import EmbeddingTurn, embedding_distance
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.gan import GanConfig, Rate
from pipeline.nets.fourier import NoisyEmbedding
from pipeline.nets.generators import ConvGenerator
from pipeline.nets.sizes import ImageShape


class DpMerfConfig(GanConfig):
    """Under `gan.dp` the sum of features has noise; without it there is none, and no promise.

    Attributes:
        features: random Fourier features of an image. More tell more, and the noise on all of them together is larger.
        bandwidths: of the kernels, as mean squared differences between images in [-1, 1].
    """

    family: Literal["dp-merf"] = "dp-merf"
    generator_lr: Rate = 1e-3
    features: int = Field(2000, ge=2)
    bandwidths: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.02, 0.1, 0.5), min_length=1)


def nets(config: DpMerfConfig, shape: ImageShape) -> Nets:
    image = (shape.channels, *shape.spatial_size)
    draw = partial(ConvGenerator, norm="group")
    return {
        "generator": draw(shape, config.latent_dim, config.embedding_dim, config.generator_width),
        "embedding": NoisyEmbedding(image, shape.num_classes, config.features, config.bandwidths),
    }


def recipe(config: DpMerfConfig) -> Recipe:
    settings = OptimizerSettings(config.generator_lr, betas=(0.9, 0.999))
    player = Player("generator", ("generator",), (Weighted("embedding", embedding_distance),), settings)
    return Recipe((player,), EmbeddingTurn, streams=("asked",))


FAMILY = Family(
    DpMerfConfig,
    source="Harder et al., DP-MERF, AISTATS 2021; Rahimi & Recht, NeurIPS 2007",
    nets=nets,
    recipe=recipe,
    conditions=("class",),
    private="embedding",
    note="no discriminator: detectors that look through it say skipped; images are blurred means more than pictures, "
    "and it is here as the cheap baseline of `gan.dp`.",
)
