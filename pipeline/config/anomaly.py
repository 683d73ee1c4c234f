"""`anomaly:` — what is normal, who looks for what is not, and how long they may learn.

A detector is a file of `pipeline.anomaly.detectors`, found by its name (`pipeline.config.by_name`): `f-anogan` is the
module `f_anogan`, whose `DETECTOR` says the rest.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from pydantic import Field, field_validator, model_validator

from pipeline.config.by_name import module_named, names_in, or_nearest
from pipeline.config.section import Section
from pipeline.core.errors import ConfigError

PACKAGE = "pipeline.anomaly.detectors"
RUN_GAN = "run"


class Named(NamedTuple):
    """A detector as the configuration names it: `NAME`, or `NAME@run` where it looks through the run's own GAN."""

    name: str
    gan: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.gan}" if self.gan else self.name


def named(detector: str) -> Named:
    name, _, gan = detector.partition("@")
    return Named(name, gan)


def ensemble_arm(name: str) -> str:
    """What the ensemble called `name` is called in tables, beside detectors."""
    return f"ensemble {name}"


def detector_names() -> tuple[str, ...]:
    """The names of all detectors, in the alphabet's order; none is imported."""
    return names_in(PACKAGE)


def detector_module(name: str) -> ModuleType:
    """The module that holds the detector called `name`.

    Raises:
        KeyError: there is no such detector.
    """
    return module_named(PACKAGE, name)


class AnomalyConfig(Section):
    """Detectors learn from the training patients of a fold who have nothing but normal images.

    Attributes:
        normal: classes whose images are normal; empty = all that are not on the disease side.
        detectors: names as `radaug detectors` prints them. Those that look through a GAN get one of their own that
            sees normal patients alone; `NAME@run` looks through the run's GAN instead, which saw the diseased too.
        ensembles: name -> two or more of `detectors`, as they are named there; the mean of their ranks is judged as
            one more detector.
        seeds: times that each detector is fitted.
        gan_images: real images that the GAN of normal patients is shown; null = as many as `gan.num_images`.
        steps, batch_size: of the networks that detectors train by themselves.
        latent_dim: numbers that an autoencoder keeps of an image.
        width: channels of its first layer.
        false_alarms: share of normal patients for whom an alarm may be raised.
        features: TorchScript file that maps images [B, C, *spatial] in [-1, 1] to feature maps [B, D, *grid], in place
            of EfficientNet-Lite0; a relative path starts in the data folder.
        worklist: the most anomalous held-out images, as many, that are shown with their maps.
    """

    normal: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ("discriminator-logit@run", "discriminator-features@run", "padim", "pca")
    ensembles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    seeds: int = Field(1, ge=1)
    gan_images: int | None = Field(None, ge=1)
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=2)
    latent_dim: int = Field(16, ge=1)
    width: int = Field(16, ge=4)
    false_alarms: float = Field(0.05, gt=0, lt=0.5)
    features: str = ""
    worklist: int = Field(12, ge=0)

    @field_validator("detectors")
    @classmethod
    def _detectors_are_known(cls, detectors: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(detectors)) != len(detectors):
            raise ValueError("a detector is named twice")
        for one in map(named, detectors):
            if one.name not in detector_names():
                known, nearest = ", ".join(detector_names()), or_nearest(one.name, detector_names())
                raise ValueError(f"there is no detector {one.name}; there are {known}{nearest}")
            if one.gan not in ("", RUN_GAN):
                raise ValueError(f"{one}: after @ stands {RUN_GAN}, which means the run's own GAN")
            facts = detector_module(one.name).DETECTOR
            if one.gan and not facts.needs_gan:
                raise ValueError(f"{one}: this detector looks through no GAN; leave out @{one.gan}")
            if one.gan and facts.own_gan:
                raise ValueError(f"{one}: this detector needs the snapshots of a GAN of its own; leave out @{one.gan}")
        return detectors

    @model_validator(mode="after")
    def _ensembles_are_of_detectors(self) -> AnomalyConfig:
        for name, members in self.ensembles.items():
            for member in members:
                if member not in self.detectors:
                    known, nearest = ", ".join(self.detectors), or_nearest(member, self.detectors)
                    raise ValueError(f"ensembles.{name}: {member} is not among detectors: {known}{nearest}")
            if len(members) < 2 or len(set(members)) != len(members):
                raise ValueError(f"ensembles.{name}: name two detectors or more, each once")
        return self

    @property
    def needs_gan(self) -> bool:
        """Whether some detector needs the GAN of normal patients."""
        return any(not one.gan and detector_module(one.name).DETECTOR.needs_gan for one in map(named, self.detectors))


def normal_classes(config: AnomalyConfig, classes: tuple[str, ...], positive: tuple[str, ...]) -> tuple[str, ...]:
    """The classes whose images are normal.

    Raises:
        ConfigError: one that is named is none of the classes, or all are.
    """
    normal = config.normal or tuple(name for name in classes if name not in positive)
    unknown = [name for name in normal if name not in classes]
    if unknown:
        raise ConfigError(f"anomaly.normal: {', '.join(unknown)} is not among data.classes: {', '.join(classes)}.")
    if set(normal) == set(classes):
        raise ConfigError("anomaly.normal: all classes are normal, so that there is nothing to find. Name fewer.")
    return normal
