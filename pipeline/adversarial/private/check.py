"""What `gan.dp` can account for, and what it refuses by name before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import parametrize

from pipeline.adversarial.families import FAMILIES
from pipeline.config.gan import GanConfig
from pipeline.core.errors import ConfigError
from pipeline.nets.sizes import ImageShape

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

_SIDE = 8
_REGULARISERS = {
    "r1": "R1", "gradient_penalty": "gradient penalty", "path_length": "path length", "orthogonality": "orthogonality",
}  # fmt: skip


def require_private(experiment: Experiment) -> None:
    """Refuse what a training under `gan.dp` cannot promise anything of; nothing where there is no `gan.dp`.

    Raises:
        ConfigError: the family, the devices or the precision; the message names what stands in the way.
    """
    gan = experiment.gan
    if gan.dp is None:
        return
    found = obstacles(gan, experiment.data.spatial_dims)
    if found:
        able = ", ".join(name for name, family in FAMILIES.items() if family.private)
        raise ConfigError(
            f"gan.dp: gan.family: {gan.family} cannot be trained under it: {'; '.join(found)}. Use one of {able}."
        )
    if experiment.compute.devices > 1:
        raise ConfigError("gan.dp: its noise is drawn in one process. Set compute.devices: 1.")
    if experiment.compute.precision == "bf16":
        raise ConfigError("gan.dp: gradients are clipped in full precision. Set compute.precision: float32.")


def obstacles(gan: GanConfig, dims: int) -> list[str]:
    """Parts of the family that let images see each other, or see patients past the noise; none = it can be private."""
    family = FAMILIES[gan.family]
    nets, recipe = family.build(gan, ImageShape((_SIDE,) * dims, 1, 2))
    layers = [module for net in nets.values() for module in net.modules()]
    found = []
    if any(map(parametrize.is_parametrized, layers)):
        found.append("spectral norm makes its weights anew at every move, where no patient's own gradient can be read")
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers):
        found.append("batch norm lets the images of a batch see each other")
    names = [weighted.name for player in recipe.players for weighted in player.terms]
    found += [f"{said} reads the discriminator's gradient" for name, said in _REGULARISERS.items() if name in names]
    found += [f"it makes images from training images' own ({need})" for need in family.needs]
    if recipe.schedules or recipe.states:
        found.append("it remembers what it saw from step to step")
    if not family.private and not found:
        found.append("it learns from images in a way that is not accounted for")
    return found
