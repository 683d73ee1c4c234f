"""CycleGAN: unpaired translation between two domains, held together by cycles (Zhu et al., ICCV 2017)."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from pipeline.adversarial.coupling import DOMAINS, two_domains
from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import LEAST_SQUARES
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.semantics import JUDGE, FrozenJudge, answers_lost
from pipeline.adversarial.translation import CycleTurn, ImageBuffer, cycle_error, identity_error
from pipeline.config.augment import AugmentConfig
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import DomainDiscriminators, DomainTranslators


class CycleganConfig(GanConfig):
    """Translation between two unpaired domains (Zhu et al., ICCV 2017).

    `augment` moves images and leaves their intensities alone, which a translation must get right.

    Attributes:
        cycle: weight of the way there and back.
        identity: weight of leaving an image of the target domain as it is.
        buffer: older translations that the discriminators are shown again.
        between: `classes`: from those that are not `data.positive` to those that are, and back. `sites`: from site to
            site within a class, with `by_site` and two sites: batches hold all classes equally at both, so that the
            sites' class mix cannot be translated too. Every training image is translated in turn.
        semantic: with `between: sites`, weight of keeping what a classifier says of an image, which is trained on the
            same training images beforehand and then frozen.
        semantic_steps: of that classifier's training, 32 images each, cells of site and class equally often.
        cycle_noise: standard deviation, in units of [-1, 1], of noise on a translation before it is translated back,
            which hidden traces of the source do not survive (Chu et al., "CycleGAN, a master of steganography", 2017).
    """

    family: Literal["cyclegan"] = "cyclegan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 1e-3
    augment: AugmentConfig = AugmentConfig(brightness=0, contrast=0, shift=0.125, rotate_degrees=0, scale=0, noise=0)
    cycle: Weight = 10.0
    identity: Weight = 5.0
    buffer: int = Field(50, ge=0)
    between: Literal["classes", "sites"] = "classes"
    semantic: Weight = 0.0
    semantic_steps: int = Field(300, ge=1)
    cycle_noise: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _sites_are_asked_for_by_name(self) -> Self:
        if self.between == "sites" and not self.by_site:
            raise ValueError("between: sites translates cells of site and class: set by_site: true")
        if self.semantic and self.between != "sites":
            raise ValueError("semantic keeps the class of an image, which between: classes is to change; set it to 0")
        return self


def nets(config: CycleganConfig, shape: ImageShape) -> Nets:
    shape, width = two_domains(shape), max(4, config.generator_width // 4)
    return {
        "generator": DomainTranslators(shape, config.latent_dim, config.embedding_dim, width),
        "discriminator": DomainDiscriminators(shape, config.discriminator_width),
    }


def recipe(config: CycleganConfig) -> Recipe:
    # the weights 2 and 4 make sums over both domains of terms that are means over them, and undo the generator's half
    objective = LEAST_SQUARES.weighted(2.0, 4.0)
    cycles = [Weighted("cycle", cycle_error, config.cycle), Weighted("identity", identity_error, config.identity)]
    if config.semantic:
        cycles.append(Weighted("semantic", answers_lost, config.semantic))
    buffers = {name: ImageBuffer(config.buffer) for name in ("buffer_a", "buffer_b")}
    players = player_pair(config, objective, generator=cycles, betas=(0.5, 0.999))
    return Recipe(players, partial(CycleTurn, noise=config.cycle_noise), streams=DOMAINS, states=buffers)


def states(config: CycleganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    return {JUDGE: FrozenJudge(shape, config.semantic_steps)} if config.semantic else {}


FAMILY = Family(
    CycleganConfig,
    source="Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017",
    nets=nets,
    recipe=recipe,
    states=states,
    conditions=("class", "source"),
    needs=("source",),
    note="It changes training images of the other domain (classes, or sites), makes none from noise, and takes no "
    "attributes.",
)
