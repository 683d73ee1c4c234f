"""How far out in the tails of normal images' values an image lies (ECOD; Li et al., TKDE 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals
from pipeline.anomaly.maps import spread_over
from pipeline.anomaly.thumbnails import SIDES, grid_of, thumbnails, thumbnails_of


class TailProbabilities(Detector):
    """The sum over a thumbnail's cells of -log of the smaller tail probability; its map is that sum's terms.

    With n normal images, the left tail of a cell's value x is (1 + number of values <= x) / (1 + n), the right one
    (1 + number of values >= x) / (1 + n): the image counts once in its own distribution, as in PyOD. A cell gives the
    largest of three: left, right, and that of the two which the sign of the cell's skewness names. The third is never
    larger than the other two, so it need not be taken; the paper sums over cells before it takes the largest, PyOD, by
    the same authors, takes it cell by cell as here. PyOD puts all images of a call into the distribution together, so
    that they change each other's scores; here an image's score is what PyOD gives it alone.
    """

    values: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        vectors = thumbnails_of(normals.train)
        self.keep(values=vectors.T.sort(dim=1).values)
        return {"cells": vectors.shape[1]}

    def score(self, images: Tensor) -> Tensor:
        return self._tails(images).sum(dim=1).float()

    def map(self, images: Tensor) -> Tensor:
        grid = grid_of(images.shape[2:], SIDES[images.ndim - 2])
        by_cell = self._tails(images).view(len(images), -1, *grid).sum(dim=1)
        return spread_over(by_cell.float(), images.shape[2:])

    def _tails(self, images: Tensor) -> Tensor:
        """-log of the smaller tail probability, [B, C x cells], float64."""
        own, number = thumbnails(images).T.contiguous(), self.values.shape[1]
        at_most = torch.searchsorted(self.values, own, right=True)
        at_least = number - torch.searchsorted(self.values, own)
        return -torch.log((1 + torch.minimum(at_most, at_least)).double() / (1 + number)).T


DETECTOR = DetectorFacts(
    "plain", "Li et al., ECOD: Unsupervised Outlier Detection Using Empirical Cumulative Distribution Functions, TKDE "
    "2022", TailProbabilities, says_where=True,
    note="on images averaged down to 16 x 16 (8 x 8 x 8); equal to PyOD's for one image at a time",
)  # fmt: skip
