"""Translation between two unpaired domains: which they are, what is to stay as it is, and what is shown again."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from pipeline.adversarial.recipe import Weighted
from pipeline.adversarial.semantics import JUDGE, FrozenJudge, answers_lost
from pipeline.adversarial.translation import CycleTurn, ImageBuffer
from pipeline.config.gan import GanConfig, Weight
from pipeline.nets.sizes import ImageShape


class UnpairedConfig(GanConfig):
    """Of a family that translates between two unpaired domains.

    Attributes:
        buffer: older translations that a discriminator is shown again.
        patch_halvings: of the grid in a discriminator, which say how much of the image it looks at: after 1, 2, 3, 4 of
            them at patches of 8, 18, 38, 78 voxels a side. Domains that differ in anatomy need patches as large as
            the image; ones that differ in texture do not. Without it 1 below 32 voxels a side, 2 below 64, then 3.
        between: `classes`: from those that are not `data.positive` to those that are, and back. `sites`: from site to
            site within a class, with `by_site`: batches hold all classes equally at all sites, so that the
            sites' class mix cannot be translated too. Every training image is translated in turn. `archives`: the
            same, but the translator knows no classes: it learns from all images of the sites that may be learnt from,
            labelled or not, as frequent as they are.
        semantic: between sites, weight of keeping what a classifier says of an image, which is trained on the
            same training images beforehand and then frozen.
        semantic_steps: of that classifier's training, 32 images each, cells of site and class equally often.
        cycle_noise: standard deviation, in units of [-1, 1], of noise on a translation before it is translated back,
            which hidden traces of the source do not survive (Chu et al., "CycleGAN, a master of steganography", 2017).
    """

    several_sites: ClassVar[bool] = False
    """Whether it translates between more than two sites."""

    buffer: int = Field(50, ge=0)
    patch_halvings: int | None = Field(None, ge=1, le=6)
    between: Literal["classes", "sites", "archives"] = "classes"
    semantic: Weight = 0.0
    semantic_steps: int = Field(300, ge=1)
    cycle_noise: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _sites_are_asked_for_by_name(self) -> Self:
        if self.between != "classes" and not self.by_site:
            raise ValueError(f"between: {self.between} translates cells of site and class: set by_site: true")
        if self.semantic and self.between == "classes":
            raise ValueError("semantic keeps the class of an image, which between: classes is to change; set it to 0")
        return self


def semantic_terms(config: UnpairedConfig) -> list[Weighted]:
    """The term that keeps a frozen classifier's answers, where it weighs anything."""
    return [Weighted("semantic", answers_lost, config.semantic)] if config.semantic else []


def cycle_turn(config: UnpairedConfig) -> partial[CycleTurn]:
    """A turn with the noise that is asked for."""
    return partial(CycleTurn, noise=config.cycle_noise)


def buffers(config: UnpairedConfig) -> dict[str, ImageBuffer]:
    """What the discriminators are shown again, of each domain."""
    return {name: ImageBuffer(config.buffer) for name in ("buffer_a", "buffer_b")}


def frozen_judge(config: UnpairedConfig, shape: ImageShape) -> dict[str, nn.Module]:
    """That classifier, kept in the training's checkpoints; none without the term."""
    return {JUDGE: FrozenJudge(shape, config.semantic_steps)} if config.semantic else {}
