"""The `gan:` section of each family, told apart by `family`. What a key means is in the paper that the family names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from pipeline.config.augment import AugmentConfig
from pipeline.config.gan import GanConfig, Rate, Weight


class MlpGanConfig(GanConfig):
    """The first GAN (Goodfellow et al. 2014): multilayer perceptrons."""

    family: Literal["gan"] = "gan"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 4e-4


class DcganConfig(GanConfig):
    """`real_target`: one-sided label smoothing (Salimans et al. 2016)."""

    family: Literal["dcgan"] = "dcgan"
    generator_lr: Rate = 1e-4
    discriminator_lr: Rate = 1e-4
    real_target: float = Field(0.9, gt=0, le=1)


class CganConfig(GanConfig):
    """`conditioning`: how the discriminator learns what the image shall be."""

    family: Literal["cgan"] = "cgan"
    conditioning: Literal["concat", "projection", "auxiliary"] = "concat"


class WganConfig(GanConfig):
    """`clip`: bound of every discriminator weight; `discriminator_steps`: its moves a generator's move."""

    family: Literal["wgan"] = "wgan"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 1e-3
    ema: float = Field(0.995, ge=0, lt=1)
    clip: float = Field(0.03, gt=0)
    discriminator_steps: int = Field(2, ge=1)


class WganGpConfig(GanConfig):
    family: Literal["wgan-gp"] = "wgan-gp"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 8e-4
    ema: float = Field(0.995, ge=0, lt=1)
    gradient_penalty: Weight = 10.0
    discriminator_steps: int = Field(2, ge=1)


class SnganConfig(GanConfig):
    """Spectrally normalised GAN with hinge loss and projection (Miyato et al. 2018), the default family."""

    family: Literal["sngan"] = "sngan"


class SaganConfig(GanConfig):
    """`attention_side`: self-attention acts where the grid's longest side is at most this."""

    family: Literal["sagan"] = "sagan"
    generator_lr: Rate = 1e-4
    discriminator_lr: Rate = 4e-4
    attention_side: int = Field(16, ge=4)


class BigganConfig(GanConfig):
    """`attention_side`: as sagan's; `orthogonal`: weight of the generator's orthogonality."""

    family: Literal["biggan"] = "biggan"
    generator_lr: Rate = 2e-4
    discriminator_lr: Rate = 4e-4
    attention_side: int = Field(16, ge=4)
    orthogonal: Weight = 1e-4


class ProganConfig(GanConfig):
    """`growing`: share of the training in which the image grows; the rest is at full size."""

    family: Literal["progan"] = "progan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 4e-3
    gradient_penalty: Weight = 10.0
    growing: float = Field(0.5, ge=0, lt=1)


class Stylegan2Config(GanConfig):
    """`r1_every`, `path_every`: moves from one lazy regulariser to the next; a weight of 0 leaves it out.

    At equal learning rates the generator outruns a discriminator that sees augmented images.
    """

    family: Literal["stylegan2"] = "stylegan2"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 4e-3
    mapping_layers: int = Field(4, ge=1)
    style_mixing: float = Field(0.9, ge=0, le=1)
    r1_gamma: Weight = 0.01
    r1_every: int = Field(16, ge=1)
    path_weight: Weight = 2.0
    path_every: int = Field(4, ge=1)


class CycleganConfig(GanConfig):
    """`buffer`: how many older translations the discriminators are shown again.

    `augment` moves images and leaves their intensities alone, which a translation must get right.
    """

    family: Literal["cyclegan"] = "cyclegan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 1e-3
    augment: AugmentConfig = AugmentConfig(brightness=0, contrast=0, shift=0.125, rotate_degrees=0, scale=0, noise=0)
    cycle: Weight = 10.0
    identity: Weight = 5.0
    buffer: int = Field(50, ge=0)


class CoganConfig(GanConfig):
    family: Literal["cogan"] = "cogan"


class Pix2pixConfig(GanConfig):
    family: Literal["pix2pix"] = "pix2pix"
    generator_lr: Rate = 2e-4
    discriminator_lr: Rate = 2e-4
    l1: Weight = 100.0


class SpadeConfig(GanConfig):
    family: Literal["spade"] = "spade"
    feature_matching: Weight = 10.0


class VaeConfig(GanConfig):
    """`kl`: weight of the divergence from the prior, of both terms summed over an image and divided by its voxels."""

    family: Literal["vae"] = "vae"
    generator_lr: Rate = 1e-3
    kl: Weight = 1.0


class VaeGanConfig(GanConfig):
    """`reconstruction`: weight of the likeness of features beside the adversarial loss, of the generator."""

    family: Literal["vae-gan"] = "vae-gan"
    generator_lr: Rate = 2e-4
    encoder_lr: Rate = 5e-4
    kl: Weight = 1.0
    reconstruction: Weight = 1.0


class SsganConfig(GanConfig):
    """Weights of the generator's terms beside the adversarial one; `asked_class`: its fakes' cross-entropy."""

    family: Literal["ssgan"] = "ssgan"
    feature_matching: Weight = 1.0
    asked_class: Weight = 0.1


class S3ganConfig(GanConfig):
    """`rotation`, `generator_rotation`: weight of the self-supervised task on real images and on fakes; `labelling`: of
    the head that gives pseudo-labels."""

    family: Literal["s3gan"] = "s3gan"
    rotation: Weight = 0.5
    generator_rotation: Weight = 0.2
    labelling: Weight = 0.2


GanSettings = Annotated[
    MlpGanConfig
    | DcganConfig
    | CganConfig
    | WganConfig
    | WganGpConfig
    | SnganConfig
    | SaganConfig
    | BigganConfig
    | ProganConfig
    | Stylegan2Config
    | CycleganConfig
    | CoganConfig
    | Pix2pixConfig
    | SpadeConfig
    | VaeConfig
    | VaeGanConfig
    | SsganConfig
    | S3ganConfig,
    Field(discriminator="family"),
]


def validate_gan(values: dict[str, Any]) -> GanConfig:
    """The `gan:` section from plain values, such as a trained generator's description."""
    return TypeAdapter(GanSettings).validate_python(values)
