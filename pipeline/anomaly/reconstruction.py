"""Detectors that restore an image as normal images are: what they cannot restore is unlike them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import Detector, Normals, Setting
from pipeline.anomaly.training import built, train_on
from pipeline.data.batches.draws import Draws


class Reconstruction(Detector):
    """A network that gives back normal images; the score is the mean of its map, the squared residual.

    The network is trained on normal images by `loss`, which is what a method changes.
    """

    what = "the autoencoder"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.net = built(setting, self.make_net)

    def make_net(self) -> nn.Module:
        raise NotImplementedError

    def loss(self, images: Tensor, draws: Draws) -> Tensor:
        return nn.functional.mse_loss(self.net(images).float(), images)

    def fit(self, normals: Normals) -> dict[str, Any]:
        train_on(normals.train, self.net, self.loss, self.setting, self.what)
        return {"parameters": sum(weight.numel() for weight in self.net.parameters())}

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return self.map(images).flatten(1).mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return (self.net(images) - images).square().mean(dim=1)
