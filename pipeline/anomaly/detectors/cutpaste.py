"""Distance from normal images in features that tell them from spoilt copies (CutPaste; Li et al., CVPR 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.corruptions import cut_pasted, scarred
from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.neighbours import mahalanobis, shrunk_gaussian
from pipeline.anomaly.own_features import OnOwnFeatures
from pipeline.anomaly.training import built, train_on
from pipeline.data.batches.draws import Draws
from pipeline.nets.classifiers import pooled

_KINDS = 3
"""Normal, with a box pasted in, with a scar: their three-way task."""


class CutPaste(OnOwnFeatures):
    """A classifier learns normal, cut-pasted and scarred apart; the score is the Mahalanobis distance from a Gaussian
    of the normal images' features, its covariance shrunk as Ledoit & Wolf say.

    The features are means over a grid, so the squared score is the mean of a number a place: the map (`shares`).
    """

    mean: Tensor
    whitening: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        head = built(self.setting, lambda: nn.Linear(self.features, _KINDS))
        nets = nn.ModuleDict({"trunk": self.trunk, "head": head})

        def loss(images: Tensor, draws: Draws) -> Tensor:
            batch = torch.cat([images, cut_pasted(images, draws), scarred(images, draws)])
            kinds = torch.arange(_KINDS, device=images.device).repeat_interleave(len(images))
            return nn.functional.cross_entropy(nets["head"](pooled(nets["trunk"](batch))).float(), kinds)

        train_on(normals.train, nets, loss, self.setting, "the CutPaste network")
        mean, whitening = shrunk_gaussian(self.vectors_of(normals.train))
        self.keep(mean=mean, whitening=whitening)
        return {"features": self.features}

    def score(self, images: Tensor) -> Tensor:
        return mahalanobis(self.vectors(images), self.mean, self.whitening)

    def map(self, images: Tensor) -> Tensor:
        return spread_over(self.shares(images), images.shape[2:])

    def shares(self, images: Tensor) -> Tensor:
        """What each place of the trunk's grid adds to the squared score, whose mean they are: [B, *grid].

        With pooled features v, those of a place f, mean m and covariance C: (f - m) · C⁻¹ (v - m). That is Grad-CAM
        of half the squared score (Selvaraju et al., ICCV 2017) without its ReLU; a place may take away from the score.
        """
        grids = self.grids(images)
        towards = (pooled(grids) - self.mean) @ self.whitening @ self.whitening.T
        places = grids.flatten(2) - self.mean[:, None]
        return (places * towards[:, :, None]).sum(dim=1).view(len(images), *grids.shape[2:])


DETECTOR = DetectorFacts(
    "self-supervised", "Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization, CVPR "
    "2021",
    CutPaste, says_where=True, trains=True,
    note="a small network from scratch; patches keep their brightness; maps are as coarse as its grid, an eighth",
)  # fmt: skip
