"""A GAN family: its configuration, nets and recipe, with what most families have in common as defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from pipeline.adversarial.objectives import HINGE, Objective
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.gan import GanConfig
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.generators import ConvGenerator
from pipeline.nets.sizes import ImageShape

Config = TypeVar("Config", bound=GanConfig)
Nets = dict[str, nn.Module]
Need = Literal["mask", "source"]
_NARROWEST = 4


def conv_generator(config: GanConfig, shape: ImageShape) -> ConvGenerator:
    """The usual generator, at the configured width."""
    return ConvGenerator(shape, config.latent_dim, config.embedding_dim, config.generator_width)


def net_pair(
    generator: Callable[[ImageShape, int, int, int], nn.Module] = ConvGenerator,
    discriminator: Callable[[ImageShape, int], nn.Module] = ProjectionDiscriminator,
    *,
    generator_share: Fraction = Fraction(1),
    discriminator_share: Fraction = Fraction(1),
) -> Callable[[GanConfig, ImageShape], Nets]:
    """What builds a generator(shape, latent_dim, embedding_dim, width) and a discriminator(shape, width).

    Args:
        generator_share, discriminator_share: of the configured widths, so that a family costs what the default one
            does; at least 4 channels are left.
    """

    def nets(config: GanConfig, shape: ImageShape) -> Nets:
        width, judging = config.generator_width * generator_share, config.discriminator_width * discriminator_share
        return {
            "generator": generator(shape, config.latent_dim, config.embedding_dim, max(_NARROWEST, int(width))),
            "discriminator": discriminator(shape, max(_NARROWEST, int(judging))),
        }

    return nets


usual_nets = net_pair()


def usual_generator(config: GanConfig) -> Callable[..., nn.Module]:
    """The usual generator; where images may not see each other, without batch norm."""
    return partial(ConvGenerator, norm="group") if config.norms_alone else ConvGenerator


def player_pair(
    config: GanConfig,
    objective: Objective,
    discriminator: Sequence[Weighted] = (),
    generator: Sequence[Weighted] = (),
    *,
    betas: tuple[float, float] = (0.0, 0.9),
    kind: Literal["adam", "rmsprop"] = "adam",
    clip: float | None = None,
    repeats: int = 1,
) -> tuple[Player, Player]:
    """A discriminator that moves at `discriminator_lr`, then a generator at `generator_lr`.

    Args:
        discriminator, generator: their terms beside the objective.
        betas, kind: of both optimisers.
        clip: bound of the discriminator's weights.
        repeats: the discriminator's moves for each of the generator.
    """
    first = OptimizerSettings(config.discriminator_lr, betas, kind, clip)
    second = OptimizerSettings(config.generator_lr, betas, kind)
    return (
        Player("discriminator", ("discriminator",), (objective.discriminator, *discriminator), first, repeats),
        Player("generator", ("generator",), (objective.generator, *generator), second),
    )


def usual_recipe(config: GanConfig) -> Recipe:
    """The hinge loss, one move each."""
    return Recipe(player_pair(config, HINGE))


def no_states(config: GanConfig, shape: ImageShape) -> Mapping[str, nn.Module]:
    """What a training remembers does not depend on the images."""
    return {}


@dataclass(frozen=True)
class Family(Generic[Config]):
    """What a family's file says of it.

    Attributes:
        config: its `gan:` section; the default of its key `family` is the family's name.
        source: the paper.
        nets: (config, shape) -> nets by name; "generator" and, where there is one, "discriminator".
        recipe: config -> Recipe.
        states: (config, shape) -> further states of the recipe, whose form depends on the images.
        conditions: what an image can be asked by: class, attributes, mask, source image.
        needs: what every image is made from beside z: the training images' masks, or training images.
        note: what the family cannot do, in a sentence.
        private: what `gan.dp` puts noise on; nothing = the family cannot be trained under it.
    """

    config: type[Config]
    source: str
    nets: Callable[[Config, ImageShape], Nets] = usual_nets
    recipe: Callable[[Config], Recipe] = usual_recipe
    states: Callable[[Config, ImageShape], Mapping[str, nn.Module]] = no_states
    conditions: tuple[str, ...] = ("class", "attributes")
    dimensions: tuple[int, ...] = (2, 3)
    needs: tuple[Need, ...] = ()
    note: str = ""
    private: Literal["", "discriminator", "embedding"] = ""

    @property
    def name(self) -> str:
        return str(self.config.model_fields["family"].default)

    def build(self, config: Any, shape: ImageShape) -> tuple[Nets, Recipe]:
        """Nets and recipe of a configuration of this family."""
        recipe = self.recipe(config)
        return self.nets(config, shape), replace(recipe, states={**recipe.states, **self.states(config, shape)})
