"""The whole experiment: one YAML file, one model."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.data import DataConfig, PhantomSource, Positive
from pipeline.config.section import Section

ARM_PATTERN = re.compile(r"real(\+classical(\+synthetic@(?P<ratio>\d+(\.\d+)?))?)?|synthetic\+classical")
REFERENCE_ARM = "real+classical"


class AugmentConfig(Section):
    """Batched random transforms on the device. Every strength is a half-range; 0 switches a transform off.

    Attributes:
        brightness: added to images in [-1, 1].
        contrast: factor about the image's own mean, 1 - c to 1 + c.
        gamma: the image (mapped to [0, 1]) to the power exp(-g .. g).
        shift: fraction of the side, in whole voxels, filled by reflection.
        rotate_degrees: about the centre (in 3D about every axis).
        scale: factor 1 - s to 1 + s.
        noise: Gaussian sigma in units of [-1, 1], 0 to n.
        cutout: side of a square (cube) set to the lowest value, as a fraction of the side.
        flip: spatial axes that may be mirrored; empty by default, since anatomy is not symmetric.
    """

    brightness: float = Field(0.1, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.08, ge=0, le=0.5)
    rotate_degrees: float = Field(8.0, ge=0, le=180)
    scale: float = Field(0.08, ge=0, lt=0.5)
    noise: float = Field(0.03, ge=0, le=1)
    cutout: float = Field(0.0, ge=0, lt=1)
    flip: tuple[int, ...] = ()


DISCRIMINATOR_AUGMENT = AugmentConfig(
    brightness=0.25, contrast=0.5, shift=0.125, rotate_degrees=0, scale=0, noise=0, cutout=0.5
)


class SnganConfig(Section):
    """Spectrally normalised GAN with hinge loss and projection (Miyato et al. 2018), the default family.

    Attributes:
        num_images: length of training, in real images shown to the discriminator.
        width: channels of the generator's first block; doubled blocks follow the image size.
        generator_lr, discriminator_lr: far apart, since a normalised discriminator that sees augmented images learns
            slowly: at equal rates the generator outruns it, and both stand still.
        ema: decay of the averaged generator a step; it is the averaged one that makes the samples.
        augment: differentiable augmentation of real and fake images (Zhao et al. 2020), of the same transforms that
            the classifiers use.
        snapshots: sample grids over the training.
        checkpoints: checkpoints over the training; a killed run goes on from the last one.
    """

    family: Literal["sngan"] = "sngan"
    num_images: int = Field(100_000, ge=1)
    batch_size: int = Field(32, ge=2)
    gan_seeds: int = Field(1, ge=1)
    latent_dim: int = Field(64, ge=1)
    embedding_dim: int = Field(32, ge=1)
    generator_width: int = Field(32, ge=4)
    discriminator_width: int = Field(32, ge=4)
    generator_lr: Positive = 5e-5
    discriminator_lr: Positive = 8e-4
    ema: float = Field(0.998, ge=0, lt=1)
    augment: AugmentConfig = DISCRIMINATOR_AUGMENT
    snapshots: int = Field(8, ge=1)
    checkpoints: int = Field(10, ge=1)
    samples_per_class: int = Field(200, ge=8)
    truncation_psi: float = Field(1.0, gt=0, le=1)


class ClassifierConfig(Section):
    """The downstream classifier; every arm gets the same network, steps and schedule."""

    network: Literal["small_cnn", "densenet121", "resnet18"] = "small_cnn"
    steps: int = Field(500, ge=1)
    seeds: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=2)
    lr: Positive = 1e-3
    weight_decay: float = Field(1e-2, ge=0)
    augment: AugmentConfig = AugmentConfig()


class VerdictConfig(Section):
    """The decision rule, fixed before the run."""

    endpoint: Literal["auroc", "sensitivity", "specificity"] = "auroc"
    margin: Positive = 0.02
    alpha: float = Field(0.05, gt=0, lt=0.5)
    bootstrap: int = Field(2000, ge=100)


class ReleaseConfig(Section):
    """The ONE generator that may ever leave the building, named before the run."""

    fold: int = Field(0, ge=0)
    gan_seed: int = Field(0, ge=0)


class ComputeConfig(Section):
    """Where and how to compute. `deterministic` makes CUDA runs repeatable at some cost; CPU runs always are."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    deterministic: bool = False


class Experiment(Section):
    """One experiment: data, GAN, classifier, arms and the decision rule."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    data: DataConfig
    gan: SnganConfig = SnganConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    arms: tuple[str, ...] = ("real", REFERENCE_ARM, "real+classical+synthetic@1", "synthetic+classical")
    verdict: VerdictConfig = VerdictConfig()
    release: ReleaseConfig = ReleaseConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("arms")
    @classmethod
    def _arms_are_known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [arm for arm in arms if not ARM_PATTERN.fullmatch(arm)]
        if unknown:
            raise ValueError(
                f"unknown arms {unknown}; known: real, {REFERENCE_ARM}, {REFERENCE_ARM}+synthetic@RATIO, "
                "synthetic+classical"
            )
        if len(set(arms)) != len(arms):
            raise ValueError("an arm is named twice")
        if REFERENCE_ARM not in arms:
            raise ValueError(f"{REFERENCE_ARM} must be among the arms: it is what every other arm is compared with")
        return arms

    @model_validator(mode="after")
    def _release_names_a_generator_of_this_run(self) -> Self:
        if self.release.fold >= self.data.split.num_folds or self.release.gan_seed >= self.gan.gan_seeds:
            raise ValueError("release.fold and release.gan_seed must name a generator of this run (they count from 0)")
        if isinstance(self.data.source, PhantomSource) and self.data.split.kind == "column":
            raise ValueError("data.split.kind: column needs a source with a split column; phantoms have none")
        return self


def uses_synthetic(arm: str) -> bool:
    return "synthetic" in arm
