"""An autoencoder of images that is trained and judged by what a frozen network sees of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.reconstruction import Reconstruction
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import Autoencoder
from pipeline.nets.feature_maps import feature_maps

_SIDE = 64
"""Of what EfficientNet-Lite0 sees: at 128 a training step takes four times as long."""
_SLICES = 2
"""Of a volume that is seen slice by slice, in a training step: drawn at random, the same for the whole batch."""


class PerceptualAutoencoder(Reconstruction):
    """Loss, map and score are the relative perceptual difference: how far the features of what is decoded lie from the
    image's own, |f(decoded) - f(image)|, over the image's mean |f|, with f standardised channel by channel.

    The paper's network grows while it is trained and looks through one layer of VGG19; this one does not grow.
    """

    what = "the perceptual autoencoder"
    centre: Tensor
    spread: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._maps = feature_maps(setting.features, setting.device, _SIDE)

    def make_net(self) -> nn.Module:
        config = self.setting.config
        return Autoencoder(self.setting.shape, config.width, config.latent_dim)

    def fit(self, normals: Normals) -> dict[str, Any]:
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for block in enough(normals.train).blocks():
            values = self._maps(block).transpose(0, 1).flatten(1).double()
            count, total, squares = (
                count + values.shape[1], total + values.sum(dim=1), squares + values.square().sum(dim=1),
            )  # fmt: skip
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
        self.keep(centre=mean.float(), spread=deviation.float())
        return super().fit(normals) | {"network": self._maps.name}

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        decoded = self.net(images).float()
        if images.ndim == 5 and self._maps.by_slice:
            rows = draws.randint(images.shape[2], (_SLICES,))
            images, decoded = images[:, :, rows], decoded[:, :, rows]
        with torch.autocast(self.setting.device, enabled=False):
            return self._apart(self._maps.with_gradient(decoded), self._maps(images).clone()).mean()

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return self._differences(images).flatten(1).mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return spread_over(self._differences(images), images.shape[2:])

    def _differences(self, images: Tensor) -> Tensor:
        """[B, *grid] on the CPU."""
        return self._apart(self._maps(self.net(images)), self._maps(images))

    def _apart(self, made: Tensor, seen: Tensor) -> Tensor:
        """Relative differences of maps [B, D, *grid]: [B, *grid]; an image's mean is its relative L1 distance."""
        axes = (-1, *[1] * (made.ndim - 2))
        centre, spread = (one.to(made.device).view(axes) for one in (self.centre, self.spread))
        seen = seen.to(made.device)
        size = ((seen - centre) / spread).abs().flatten(1).mean(dim=1)
        return ((made - seen) / spread).abs().mean(dim=1) / size.view(-1, *[1] * (made.ndim - 2))


DETECTOR = DetectorFacts(
    "autoencoding", "Shvetsova et al., Anomaly Detection in Medical Imaging With Deep Perceptual Autoencoders, IEEE "
    "Access 2021", PerceptualAutoencoder, says_where=True, trains=True,
    note=f"EfficientNet-Lite0 at {_SIDE} x {_SIDE}; volumes in 16 slices at most; slow",
)  # fmt: skip
