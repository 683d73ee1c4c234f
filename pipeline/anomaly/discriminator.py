"""A GAN's discriminator as detectors see it: its logit, and what its layers make of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.adversarial.activations import activations, image_by_image, under_label
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.snapshots import snapshots_of
from pipeline.adversarial.weights import load_net
from pipeline.anomaly.detector import Detector, Setting
from pipeline.core.errors import ConfigError
from pipeline.data.batches.draws import Draws
from pipeline.nets.conditions import Condition, Generator, as_generator


class OnDiscriminator(Detector):
    """A detector that looks through the discriminator of `setting.gan`, whose weights are not part of its state.

    An image is judged under every normal class and with mean attributes, never under its own label: the score would
    know the answer. A discriminator that judges an image beside its mask is shown an empty one.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.gan is not None, "this detector needs a GAN"
        net, description = load_net(setting.gan, "discriminator")
        self._net = [_judging(net, setting)]  # in a list: not part of the state
        self._labels = [description["classes"].index(name) for name in setting.normal]
        self._description = description

    @property
    def net(self) -> nn.Module:
        return self._net[0]

    def snapshots(self) -> list[nn.Module]:
        """The discriminator as it was at the GAN's snapshots, the earliest first; none where there are none."""
        assert self.setting.gan is not None
        return [_judging(load_net(place, "discriminator")[0], self.setting) for place in snapshots_of(self.setting.gan)]

    def conditions(self, images: Tensor) -> list[Condition]:
        """One for each normal class, [B] each."""
        labels = (torch.full((len(images),), label, device=self.setting.device) for label in self._labels)
        return [self._asked(label) for label in labels]

    def any_normal(self, number: int, draws: Draws) -> Condition:
        """Normal classes at random, [number]."""
        labels = torch.tensor(self._labels, device=self.setting.device)
        return self._asked(labels[draws.randint(len(labels), (number,))])

    def _asked(self, label: Tensor) -> Condition:
        return under_label(label, self.setting.shape.spatial_size, self._description)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Of the normal class that fits best, [B]; the mean over patches where these are judged."""
        return self.judged_by(self.net, images.to(self.setting.device)).float().cpu()

    def judged_by(self, net: nn.Module, images: Tensor) -> Tensor:
        """The same by another discriminator, [B] on the device, with gradients where they are wanted."""
        found = [net(images, one).logits.reshape(len(images), -1).mean(dim=1) for one in self.conditions(images)]
        return torch.stack(found).amax(dim=0)

    @torch.no_grad()
    def layers(self, images: Tensor, net: nn.Module) -> list[Tensor]:
        """Activations behind each convolution and linear layer of a discriminator, in the order of computation, [B, D,
        *grid] or [B, D] on the CPU.

        Under the first normal class; a layer that is used more than once counts the last time.
        """
        found = self.activations(images.to(self.setting.device), self.conditions(images)[0], net)
        return [output.float().cpu() for output in found]

    def activations(self, images: Tensor, condition: Condition, net: nn.Module | None = None) -> list[Tensor]:
        """The same on the device, under a condition, with gradients where they are wanted; of the finished one if no
        other is given."""
        return activations(self.net if net is None else net, images, condition)


def _judging(net: nn.Module, setting: Setting) -> nn.Module:
    return image_by_image(net).to(setting.device).eval().requires_grad_(False)


class OnGan(OnDiscriminator):
    """A detector that looks through the generator too, whose weights are not part of its state either.

    Raises:
        ConfigError: the generator needs more than noise and a class.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.gan is not None
        net, description = load_net(setting.gan, "generator")
        family = description["gan"]["family"]
        if FAMILIES[family].needs:
            raise ConfigError(
                f"anomaly.detectors: the generator of {family} makes images from "
                f"{' and '.join(FAMILIES[family].needs)}, not from noise alone. Choose another gan.family, or leave "
                "out the detectors that look through a generator."
            )
        self._generator = [net.to(setting.device).eval().requires_grad_(False)]

    @property
    def generator(self) -> Generator:
        return as_generator(self._generator[0])

    def fakes(self, generator: Generator, number: int, draws: Draws) -> Tensor:
        """Images [number, C, *spatial] of normal classes at random, on the device."""
        z = draws.randn((number, generator.latent_dim))
        return generator(z, self.any_normal(number, draws))
