"""Distance of an image's patches to a memory of normal ones (PatchCore; Roth et al., CVPR 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals, Setting
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import smoothed, spread_over
from pipeline.anomaly.neighbours import coreset, nearest
from pipeline.nets.extractors import EffNetLite0
from pipeline.nets.feature_maps import feature_maps

_KEPT, _MOST_KEPT, _MOST_SEEN = 0.1, 4_000, 40_000
"""Share of the patches that is remembered, and at most how many of how many; those seen are drawn at random."""
_NEIGHBOURS = 9
_SIGMA = 4.0
"""Of the map's smoothing, in pixels of a map of EffNetLite0.SIDE."""


class PatchMemory(Detector):
    """The largest distance of a patch to its nearest in memory, weighted by how lonely that one is (their eq. 7)."""

    bank: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._maps = feature_maps(setting.features, setting.device)

    def fit(self, normals: Normals) -> dict[str, Any]:
        random = torch.Generator().manual_seed(self.setting.seed)
        share, seen = 1.0, list[Tensor]()
        for block in enough(normals.train).blocks():
            patches = self._patches(block)[0]
            if not seen:
                share = min(1.0, _MOST_SEEN / (len(patches) / len(block) * len(normals.train)))
            if share < 1:
                patches = patches[torch.rand(len(patches), generator=random) < share]
            seen.append(patches)
        patches = torch.cat(seen)
        size = min(_MOST_KEPT, max(_NEIGHBOURS, round(_KEPT * len(patches))))
        self.keep(bank=patches[coreset(patches, size, self.setting.seed)])
        return {"patches": len(patches), "remembered": len(self.bank), "network": self._maps.name}

    def score(self, images: Tensor) -> Tensor:
        patches = self._patches(images)[0]
        distance, nearest_one = (one.view(len(images), -1) for one in nearest(patches, self.bank, 1))
        worst = distance.argmax(dim=1, keepdim=True)
        patch = patches.view(len(images), -1, patches.shape[1])[torch.arange(len(images)), worst[:, 0]]
        return self._weight(patch, nearest_one.gather(1, worst)[:, 0]) * distance.gather(1, worst)[:, 0]

    def map(self, images: Tensor) -> Tensor:
        patches, grid = self._patches(images)
        distance = nearest(patches, self.bank, 1)[0].view(len(images), *grid)
        size = (*grid[:-2], EffNetLite0.SIDE, EffNetLite0.SIDE)
        return spread_over(smoothed(spread_over(distance, size), _SIGMA), images.shape[2:])

    def _weight(self, patch: Tensor, nearest_one: Tensor) -> Tensor:
        """1 - softmax of the patch's distance among those to its nearest one's own neighbours, [B]."""
        _, around = nearest(self.bank[nearest_one], self.bank, _NEIGHBOURS)
        distances = torch.linalg.vector_norm(patch[:, None] - self.bank[around], dim=2)
        return 1 - distances.softmax(dim=1)[:, 0]

    def _patches(self, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Feature vectors averaged over 3 x 3 places, [B x places, D], and the grid of an image."""
        maps = self._maps(images)
        planes = maps if maps.ndim == 4 else maps.transpose(1, 2).flatten(0, 1)
        planes = F.avg_pool2d(planes, 3, stride=1, padding=1)
        return planes.permute(0, 2, 3, 1).flatten(0, 2), tuple(maps.shape[2:])


DETECTOR = DetectorFacts(
    "features", "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022", PatchMemory,
    says_where=True,
    note="EfficientNet-Lite0 at 128 x 128; volumes in 16 slices at most; 4,000 patches remembered at most",
)  # fmt: skip
