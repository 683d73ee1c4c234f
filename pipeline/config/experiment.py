"""The whole experiment: one YAML file, one model."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.arms import ARMS, REFERENCE_ARM, arm_facts
from pipeline.config.augment import AugmentConfig
from pipeline.config.data import DataConfig, PhantomSource, Positive
from pipeline.config.families import GanSettings, SnganConfig
from pipeline.config.section import Section

DEFAULT_FAMILY = "sngan"


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
    """Where and how to compute.

    Attributes:
        deterministic: makes CUDA runs repeatable at some cost; CPU runs always are.
        devices: processes that train one GAN together, each on a device of its own.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    deterministic: bool = False
    devices: int = Field(1, ge=1)


class Experiment(Section):
    """One experiment: data, GAN, classifier, arms and the decision rule."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    data: DataConfig
    gan: GanSettings = SnganConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    arms: tuple[str, ...] = ("real", REFERENCE_ARM, "real+classical+synthetic@1", "synthetic+classical")
    verdict: VerdictConfig = VerdictConfig()
    release: ReleaseConfig = ReleaseConfig()
    compute: ComputeConfig = ComputeConfig()

    @field_validator("gan", mode="before")
    @classmethod
    def _default_family(cls, gan: Any) -> Any:
        return {"family": DEFAULT_FAMILY} | gan if isinstance(gan, dict) else gan

    @field_validator("arms")
    @classmethod
    def _arms_are_known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [arm for arm in arms if arm_facts(arm) is None]
        if unknown:
            known = ", ".join(f"{name}@RATIO" if facts.ratio else name for name, facts in ARMS.items())
            raise ValueError(f"unknown arms {unknown}; known: {known}")
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

    @model_validator(mode="after")
    def _batches_divide_among_devices(self) -> Self:
        parts = self.gan.accumulate * self.compute.devices
        if self.gan.batch_size % parts:
            raise ValueError(
                f"gan.accumulate times compute.devices ({parts}) must divide gan.batch_size ({self.gan.batch_size})"
            )
        return self
