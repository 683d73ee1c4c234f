"""The whole experiment: one YAML file, one model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.anomaly import AnomalyConfig
from pipeline.config.arms import ARMS, REFERENCE_ARM, arm_facts, is_candidate, nearest_arm
from pipeline.config.augment import AugmentConfig
from pipeline.config.by_name import or_nearest
from pipeline.config.data import DataConfig, Positive
from pipeline.config.families import GanSettings, validate_gan
from pipeline.config.fetch import FetchConfig
from pipeline.config.privacy import PrivacyConfig
from pipeline.config.quality import QualityConfig
from pipeline.config.representation import RepresentationConfig
from pipeline.config.section import Section
from pipeline.config.sites import check_by_site
from pipeline.config.synthesis import SynthesisConfig
from pipeline.config.verdict import SubgroupConfig, VerdictConfig

__all__ = [
    "ClassifierConfig", "ComputeConfig", "Experiment", "NotifyConfig", "ReleaseConfig", "SubgroupConfig",
    "VerdictConfig",
]  # fmt: skip
Direction = Literal["R", "L", "A", "P", "H", "F"]
FEATURE_MODELS = ("logistic", "forest", "svm")
DENSENET_SIDE = 29
"""Below it one of DenseNet's five halvings (two that round up, three that round down) leaves nothing."""


class ClassifierConfig(Section):
    """The downstream classifier; every arm gets the same network, steps and schedule.

    Attributes:
        network: trained step by step; or `logistic`, `forest` or `svm`, models of scikit-learn on the features of
            EfficientNet-Lite0.
        pretrained_lr: highest learning rate of `pretrained+classical`, whose network is not the others'.
        pool_ratio: synthetic (unlabelled) images for each real one in a batch of `pool-gan` (`…+fadingpseudolabels`).
        encoder_images: `simclr-features` and `autoencoder-features` see as many images as the GAN's discriminator saw
            real ones, but no more than this; the stage's record says how many they were.
        steps: optimiser steps of every arm, the same for all.
        seeds: classifiers of each arm, fold and GAN that differ in their random numbers alone.
        batch_size: images a step.
        lr: highest learning rate (AdamW, one cycle).
        weight_decay: of AdamW.
        augment: the classical transforms of arms with `+classical`, real and synthetic images alike.
    """

    network: Literal["small_cnn", "densenet121", "resnet18", "logistic", "forest", "svm"] = "small_cnn"
    steps: int = Field(500, ge=1)
    seeds: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=2)
    lr: Positive = 1e-3
    weight_decay: float = Field(1e-2, ge=0)
    pretrained_lr: Positive = 3e-4
    pool_ratio: Positive = 10.0
    encoder_images: int = Field(100_000, ge=1)
    augment: AugmentConfig = AugmentConfig()

    @property
    def on_features(self) -> bool:
        """Whether the arms' classifiers are models on fixed features."""
        return self.network in FEATURE_MODELS

    @property
    def trained_network(self) -> str:
        """The network where one must be trained whatever the arms' classifiers are, such as quality's own."""
        return "small_cnn" if self.on_features else self.network


class ReleaseConfig(Section):
    """The ONE generator that may ever leave the building, named before the run, and how its DICOM files are written.

    Attributes:
        uid_root: of your organisation, that new UIDs begin with; "" = UUIDs below 2.25, which need no registration.
        xray_orientation: where the rows and the columns of an X-ray run to (R, L, A, P, H, F); a frontal one is [L, F].
        license: of the pack's images, as its card and its Croissant metadata give it: an SPDX name or an address.
        fold, gan_seed: of the generator, counted from 0.
    """

    fold: int = Field(0, ge=0)
    gan_seed: int = Field(0, ge=0)
    uid_root: str = Field("", max_length=40, pattern=r"^([0-2](\.(0|[1-9][0-9]*))+)?$")
    xray_orientation: tuple[Direction, Direction] = ("L", "F")
    license: str = Field("", max_length=200)

    @field_validator("uid_root")
    @classmethod
    def _the_root_is_not_dicoms_own(cls, root: str) -> str:
        if f"{root}.".startswith("1.2.840.10008."):
            raise ValueError("1.2.840.10008 is DICOM's own root; give the one that was assigned to your organisation")
        return root


class ComputeConfig(Section):
    """Where and how to compute.

    Attributes:
        deterministic: makes CUDA runs repeatable at some cost; CPU runs always are.
        devices: processes that train one GAN together, each on a device of its own.
        workers: stages and classifiers that run side by side, each a process; null = as many as there are cores for.
        threads: of each of them; null = chosen for each from the cores that are free when it starts. Another number
            rounds sums in another order: figures then differ as between two seeds.
        device: auto = a GPU if torch finds one.
        precision: auto = bf16 where the device computes it natively, else float32.
        engine: what starts the run's jobs: this machine's processes, or workers of Dask or Ray (`radaug[dask]`,
            `radaug[ray]`), which see the same paths.
        cluster: address of a Dask scheduler or a Ray head; "" = as many workers of this machine as there are `workers`.
            With it `workers` is how many jobs the cluster gets at once (64 at most), of one thread unless `threads` is
            set.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    deterministic: bool = False
    devices: int = Field(1, ge=1)
    workers: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    engine: Literal["local", "dask", "ray"] = "local"
    cluster: str = ""

    @model_validator(mode="after")
    def _a_cluster_has_an_engine_and_workers(self) -> Self:
        if self.cluster and (self.engine == "local" or self.workers is None):
            raise ValueError("cluster needs engine: dask or ray, and workers: how many jobs it gets at once")
        return self


class NotifyConfig(Section):
    """Who is told.

    Attributes:
        webhook: an address that a changed verdict is posted to as JSON; "" = nobody. It may hold a token: reports that
            are shared leave it out.
    """

    webhook: str = Field("", pattern=r"^(https?://\S+)?$")


class Experiment(Section):
    """One experiment: data, GAN, classifier, arms and the decision rule.

    Attributes:
        representation: stands for arms, which are among `arms` too; it comes before them, since they need it.
        name: the run goes to runs/NAME; the file's name unless given.
        seed: of the split and of every training; another one is another run.
        data: where images come from, how they are split and prepared.
        gan: the GAN; its keys depend on `family`.
        synthesis: what is drawn from trained generators.
        classifier: the downstream classifier of every arm.
        arms: what is compared, by name (`docs/add-an-arm.md` lists all); `real+classical` must be among them.
        verdict: the rule of the decision on utility.
        quality: how synthetic images are measured against real ones.
        anomaly: detectors of what was never shown.
        privacy: the audit of the generator that may be released.
        release: which generator that is, and how its pack is written.
        compute: where and how to compute.
        notify: who is told of a changed verdict.
        fetch: the PACS that a schedule asks for new studies before each run.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    seed: int = Field(0, ge=0)
    data: DataConfig
    gan: GanSettings = Field(default_factory=lambda: validate_gan({}))
    synthesis: SynthesisConfig = SynthesisConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    representation: RepresentationConfig = RepresentationConfig()
    arms: tuple[str, ...] = Field(
        ("real", REFERENCE_ARM, "real+classical+synthetic@1", "synthetic+classical"), validate_default=True
    )
    verdict: VerdictConfig = VerdictConfig()
    quality: QualityConfig = QualityConfig()
    anomaly: AnomalyConfig = AnomalyConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    release: ReleaseConfig = ReleaseConfig()
    compute: ComputeConfig = ComputeConfig()
    notify: NotifyConfig = NotifyConfig()
    fetch: FetchConfig = FetchConfig()

    @field_validator("arms")
    @classmethod
    def _arms_are_known(cls, arms: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        unknown = [arm for arm in arms if arm_facts(arm) is None]
        if unknown:
            known = ", ".join(f"{name}@RATIO" if facts.ratio else name for name, facts in ARMS.items())
            told = ", ".join(f"{arm}{nearest_arm(arm)}" for arm in unknown)
            raise ValueError(f"unknown arms: {told}. Known: {known}")
        if len(set(arms)) != len(arms):
            raise ValueError("an arm is named twice")
        if REFERENCE_ARM not in arms:
            raise ValueError(f"{REFERENCE_ARM} must be among the arms: it is what every other arm is compared with")
        asked = info.data.get("representation", RepresentationConfig())
        return (*arms, *(arm for arm in asked.arms if arm not in arms))

    @model_validator(mode="after")
    def _feature_models_learn_from_fixed_images(self) -> Self:
        refused = [
            arm for arm in self.arms if (facts := arm_facts(arm)) and not (facts.on_features or facts.representation)
        ]
        if self.classifier.on_features and refused:
            fitting = ", ".join(
                f"{name}@RATIO" if facts.ratio else name for name, facts in ARMS.items() if facts.on_features
            )
            raise ValueError(
                f"classifier.network: {self.classifier.network} learns from the features of fixed images, and "
                f"{', '.join(refused)} need a network that is trained step by step. Use small_cnn, resnet18 or "
                f"densenet121, or only these arms: {fitting}"
            )
        return self

    @model_validator(mode="after")
    def _the_network_fits_the_images(self) -> Self:
        side = min(self.data.shape)
        if self.classifier.network == "densenet121" and side < DENSENET_SIDE:
            raise ValueError(
                f"classifier.network: densenet121 halves an image five times and needs a side of {DENSENET_SIDE}; "
                f"data.spatial_size has one of {side}. Use small_cnn or resnet18, or a larger size"
            )
        return self

    @model_validator(mode="after")
    def _verdict_compares_arms_of_this_run(self) -> Self:
        named = {self.verdict.arm, *(arm for pair in self.verdict.comparisons for arm in pair)} - {""}
        if named - set(self.arms):
            absent = ", ".join(f"{arm}{or_nearest(arm, self.arms)}" for arm in sorted(named - set(self.arms)))
            raise ValueError(f"verdict names arms that are not among the arms: {absent}")
        if self.verdict.arm and not is_candidate(self.verdict.arm):
            raise ValueError(f"verdict.arm: {self.verdict.arm} uses no synthetic image; name an arm that does")
        return self

    @model_validator(mode="after")
    def _strata_need_sites(self) -> Self:
        if (self.verdict.stratum or self.verdict.endpoint == "worst_cell") and not self.data.site_column:
            raise ValueError(
                "verdict.stratum and the endpoint worst_cell are about cells of site and class: name the column of the "
                "site in data.site"
            )
        wanting = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.sites]
        if wanting and not self.data.site_column:
            raise ValueError(
                f"arms: {', '.join(wanting)} balance cells of site and class: name the column in data.site"
            )
        adapting = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.target]
        if adapting and not self.data.unlabelled_sites:
            raise ValueError(
                f"arms: {', '.join(adapting)} adapt to an unlabelled site: set data.sources.NAME.unlabelled: true"
            )
        if self.verdict.stratum and self.verdict.endpoint == "worst_cell":
            raise ValueError("verdict.endpoint: worst_cell looks at every cell by itself; leave verdict.stratum empty")
        return self

    @model_validator(mode="after")
    def _cells_are_asked_for_by_name(self) -> Self:
        if self.gan.by_site:
            arms = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.looks_through_gan]
            detectors = [name for name in self.anomaly.detectors if name.endswith("@run")]
            attacks = [name for name in self.privacy.attacks if name in ("latent-inversion", "discriminator", "lira")]
            check_by_site(self.data.named_sites, arms, detectors, attacks)
        wanting = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.by_site]
        if wanting and not self.gan.by_site:
            raise ValueError(f"arms: {', '.join(wanting)} need a generator of cells of site and class: set gan.by_site")
        wanting = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.translator]
        if wanting and getattr(self.gan, "between", "classes") == "classes":
            raise ValueError(
                f"arms: {', '.join(wanting)} need a translator between sites: set gan.family: cyclegan (stargan for "
                "more than two sites), gan.by_site: true and gan.between: sites, or archives where images without "
                "labels are to be learnt from"
            )
        wanting = [arm for arm in self.arms if (facts := arm_facts(arm)) and facts.blind_translator]
        if wanting and getattr(self.gan, "between", "classes") != "archives":
            raise ValueError(
                f"arms: {', '.join(wanting)} send test images through the translator, whose class nobody knows: set "
                "gan.between: archives"
            )
        return self

    @model_validator(mode="after")
    def _release_names_a_generator_of_this_run(self) -> Self:
        if self.release.fold >= self.data.split.num_folds or self.release.gan_seed >= self.gan.gan_seeds:
            raise ValueError("release.fold and release.gan_seed must name a generator of this run (they count from 0)")
        if self.data.simulated and self.data.split.kind == "column":
            raise ValueError("data.split.kind: column needs a source with a split column; phantoms have none")
        return self

    @model_validator(mode="after")
    def _fetched_studies_are_read(self) -> Self:
        if self.fetch.pacs and (self.data.source is None or self.data.source.kind != "dicom"):
            raise ValueError("fetch: brings DICOM studies into the folder of data.source, whose kind must be dicom")
        return self

    @model_validator(mode="after")
    def _batches_divide_among_devices(self) -> Self:
        parts = self.gan.accumulate * self.compute.devices
        if self.gan.batch_size % parts:
            raise ValueError(
                f"gan.accumulate times compute.devices ({parts}) must divide gan.batch_size ({self.gan.batch_size})"
            )
        return self
