"""`gan:` — what all families share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.augment import DISCRIMINATOR_AUGMENT, AugmentConfig
from pipeline.config.dp import DpConfig
from pipeline.config.section import Section

Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class AdaConfig(Section):
    """Adaptive augmentation (Karras et al., "Training GANs with limited data", NeurIPS 2020).

    Attributes:
        target: of the overfitting estimate E[sign D(real)]; above it, augmentation becomes more likely.
        num_images: in how many images the probability can go from 0 to 1.
    """

    target: float = Field(0.6, gt=-1, lt=1)
    num_images: int = Field(50_000, ge=1)


class WatchConfig(Section):
    """The collapse watch: what is looked at while training, and when it speaks. docs/collapse-watch.md says more.

    Attributes:
        checks: looks over the training, at most; 0 switches the watch off.
        images: real images a class, and as many samples, that a check looks at, at most.
        share: of the training's own work that all checks together may cost. Where a training is short they look at
            fewer images, down to 8 a class, and then there are fewer checks, down to one at the end.
        similarity: intra-class MS-SSIM of samples between that of real images (0) and that of one image (1), at most.
        reached: share of these real images that have a sample in their neighbourhood, at least.
        twins: share of samples that nearly equal another one, at most.
        overfitting: the discriminator's (train - val) / (train - fake) logit gap, at most.
        rollbacks: how often a training may go back to its last good checkpoint and on.
    """

    checks: int = Field(10, ge=0)
    images: int = Field(32, ge=8)
    share: float = Field(0.05, gt=0)
    similarity: float = Field(0.9, gt=0)
    reached: float = Field(0.05, ge=0, le=1)
    twins: float = Field(0.5, gt=0, le=1)
    overfitting: float = Field(0.9, gt=0)
    rollbacks: int = Field(2, ge=0)


class GanConfig(Section):
    """What every family has.

    Attributes:
        num_images: length of training, in real images shown to the discriminator.
        batch_size: images a move, over all devices and all parts of an accumulated batch.
        accumulate: parts that a batch is computed in, to save memory.
        checkpointing: compute activations again on the way back instead of keeping them: less memory, more time.
        attributes: numeric columns of the manifest (diameter_mm, age) that images are conditioned on beside the class.
        generator_width, discriminator_width: channels at full image size; they double with each halving of the grid.
        generator_lr, discriminator_lr: far apart where a normalised discriminator sees augmented images: it learns
            slowly, and at equal rates the generator outruns it.
        ema: decay of the averaged generator a step; it is the averaged one that makes the samples.
        augment: differentiable augmentation of real and fake images (Zhao et al. 2020), of the same transforms that
            the classifiers use.
        augment_probability: of each transform of `augment` for each image. "auto" goes by how often a training will
            show each image: 0 up to 10 times, 1 from 100 times on, and the logarithm between. A discriminator that
            sees an image a few times cannot learn it by heart, and there augmentation only slows it down.
        ada: adapts that probability to the overfitting that it sees instead, from 0 on.
        dp: differential privacy of the training patients; the collapse watch, which looks at them, is off then.
        snapshots: sample grids over the training.
        checkpoints: checkpoints over the training; a killed run goes on from the last one.
        family: which GAN: `radaug families` lists them.
        gan_seeds: GANs a fold that differ in their random numbers alone; the verdict is on all of them.
        latent_dim: random numbers that an image is made from.
        start_from: directory of a finished run; training begins with the weights of the generator that its `release:`
            names, and of its discriminator. What that run saw counts as public. A relative path starts where the
            command is given. null = random weights.
        group_norm: instead of batch norm, as under `gan.dp`: for a public set's GAN from which a private one starts.
        embedding_dim: numbers that a class and attributes are embedded in.
        watch: what is looked at while training.
        by_site: with `data.sources` or `data.correlation`: images are asked for by site and class, not by class alone,
            and `synthesis.samples_per_class` is shared out among the sites.
    """

    family: str
    num_images: int = Field(100_000, ge=1)
    batch_size: int = Field(32, ge=2)
    accumulate: int = Field(1, ge=1)
    checkpointing: bool = False
    gan_seeds: int = Field(1, ge=1)
    latent_dim: int = Field(64, ge=1)
    start_from: str | None = None
    group_norm: bool = False
    embedding_dim: int = Field(32, ge=1)
    attributes: tuple[str, ...] = ()
    generator_width: int = Field(32, ge=4)
    discriminator_width: int = Field(32, ge=4)
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 8e-4
    ema: float = Field(0.998, ge=0, lt=1)
    augment: AugmentConfig = DISCRIMINATOR_AUGMENT
    augment_probability: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    ada: AdaConfig | None = None
    watch: WatchConfig = WatchConfig()
    dp: DpConfig | None = None
    snapshots: int = Field(8, ge=1)
    checkpoints: int = Field(10, ge=1)
    by_site: bool = False

    @property
    def norms_alone(self) -> bool:
        """Whether no image of a batch may depend on the others, as batch norm makes it."""
        return self.dp is not None or self.group_norm

    @model_validator(mode="before")
    @classmethod
    def _dp_switches_the_watch_off(cls, values: Any) -> Any:
        private = isinstance(values, dict) and values.get("dp") is not None
        return {"watch": WatchConfig(checks=0)} | values if private else values

    @model_validator(mode="after")
    def _dp_accounts_for_what_is_used(self) -> Self:
        unaccounted = {
            "ada adapts to the signs of real images' logits": self.ada is not None,
            "watch compares with training images and goes back by what it sees": self.watch.checks > 0,
            "attributes lends the training images' own to new ones": bool(self.attributes),
            "accumulate divides a batch whose size is random": self.accumulate > 1,
            "by_site makes cells of few patients": self.by_site,
        }
        if self.dp is not None and any(unaccounted.values()):
            named = "; ".join(name for name, used in unaccounted.items() if used)
            raise ValueError(f"dp promises nothing of what it does not account for: {named}. Leave it out, or dp")
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate ({self.accumulate}) must divide batch_size ({self.batch_size}), as 4 divides 32"
            )
        return self
