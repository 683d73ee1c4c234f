"""An autoencoder of a frozen network's feature maps: what it cannot restore looks unlike normal images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, ImageSet, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.training import built
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.nets.autoencoders import FeatureAutoencoder
from pipeline.nets.feature_maps import feature_maps
from pipeline.supervised.unlabelled import fit_batches

_WIDTHS = (6, 9, 12)
"""Channels behind each halving of the grid, times `anomaly.width`: at the default about the paper's 100, 150, 200."""
_MOST_VALUES = 2**28
"""Numbers of training maps that are remembered, 2 bytes each; of more, planes are drawn at random."""
_WINDOW = 5
"""Places along a side over which structural similarity is taken."""
_C1, _C2 = 0.06**2, 0.18**2
"""The usual 0.01 and 0.03 of the range, squared; standardised features mostly lie within 3 of 0, a range of 6."""


class FeatureAutoencoding(Detector):
    """Feature maps, standardised channel by channel, go through a narrow and coarse grid and are compared with what
    comes out by structural similarity: the map is 1 - SSIM, from 0 to 2, averaged over channels; the score is its mean.

    The network is trained by the squared difference, a quarter of the work; the paper's is trained by 1 - SSIM too.
    Maps of volumes are restored plane by plane across their first axis.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._maps = feature_maps(setting.features, setting.device)
        shape, width = setting.shape, setting.config.width
        features = self._maps(torch.zeros(1, shape.channels, *shape.spatial_size)).shape[1]
        self.net = built(setting, lambda: FeatureAutoencoder(features, [width * times for times in _WIDTHS]))

    def fit(self, normals: Normals) -> dict[str, Any]:
        planes = self._remembered(enough(normals.train))
        parts = [part.float() for part in planes.split(64)]
        count = planes[:, 0].numel()
        centre = torch.stack([part.sum(dim=(0, 2, 3)) for part in parts]).double().sum(dim=0) / count
        apart = [(part - centre.float()[:, None, None]).square().sum(dim=(0, 2, 3)) for part in parts]
        spread = (torch.stack(apart).double().sum(dim=0) / count).sqrt().clamp_min(1e-6)
        self.keep(centre=centre.float()[:, None, None], spread=spread.float()[:, None, None])
        batches, setting = self._batches(planes), self.setting
        fit_batches(
            lambda: next(batches), self.net, self._loss, setting.hardware,
            steps=setting.config.steps, seed=setting.seed, what="the feature autoencoder",
        )  # fmt: skip
        parameters = sum(weight.numel() for weight in self.net.parameters())
        return {"planes": len(planes), "parameters": parameters, "network": self._maps.name}

    def score(self, images: Tensor) -> Tensor:
        return self._differences(images).flatten(1).mean(dim=1)

    def map(self, images: Tensor) -> Tensor:
        return spread_over(self._differences(images), images.shape[2:])

    def _loss(self, planes: Tensor, draws: Draws) -> Tensor:
        return F.mse_loss(self.net(planes).float(), planes)

    @torch.no_grad()
    def _differences(self, images: Tensor) -> Tensor:
        """[B, *grid]"""
        maps = self._maps(images)
        planes = self._standard(_planes(maps))
        found = 1 - similarity(planes, self.net(planes)).mean(dim=1)
        return found.view(len(images), *maps.shape[2:])

    def _remembered(self, images: ImageSet) -> Tensor:
        """Planes of feature maps, [N, D, rows, columns] in half precision on the CPU."""
        random, share = torch.Generator().manual_seed(derive_seed(self.setting.seed, "planes")), 1.0
        kept: list[Tensor] = []
        for block in images.blocks():
            planes = _planes(self._maps(block))
            if not kept:
                share = min(1.0, _MOST_VALUES / (planes.numel() / len(block) * len(images)))
            if share < 1:
                planes = planes[torch.rand(len(planes), generator=random) < share]
            kept.append(planes.half())
        return torch.cat(kept)

    def _batches(self, planes: Tensor) -> Iterator[Tensor]:
        """Standardised planes on the device, without replacement until they are used up."""
        random = torch.Generator().manual_seed(derive_seed(self.setting.seed, "order"))
        size = min(self.setting.config.batch_size, len(planes))
        while True:
            for rows in torch.randperm(len(planes), generator=random).split(size):
                yield self._standard(planes[rows].float()).to(self.setting.device)

    def _standard(self, planes: Tensor) -> Tensor:
        return (planes - self.centre) / self.spread


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity at every place, channel by channel: [B, D, rows, columns] twice -> the same, [-1, 1].

    Wang et al., IEEE TIP 2004, with a flat window; at the edges it is as large as the part of it that lies inside.
    """

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)

    centre, other = mean(first), mean(second)
    variance, other_variance = mean(first.square()) - centre.square(), mean(second.square()) - other.square()
    together = mean(first * second) - centre * other
    brightness = (2 * centre * other + _C1) / (centre.square() + other.square() + _C1)
    return brightness * (2 * together + _C2) / (variance + other_variance + _C2)


def _planes(maps: Tensor) -> Tensor:
    """[B, D, (slices,) rows, columns] -> [B x slices, D, rows, columns]."""
    return maps if maps.ndim == 4 else maps.transpose(1, 2).flatten(0, 1)


DETECTOR = DetectorFacts(
    "autoencoding", "Meissen et al., Unsupervised Anomaly Localization with Structural Feature-Autoencoders, BrainLes "
    "2022", FeatureAutoencoding, says_where=True, trains=True,
    note="EfficientNet-Lite0 at 128 x 128; volumes in 16 slices at most",
)  # fmt: skip
