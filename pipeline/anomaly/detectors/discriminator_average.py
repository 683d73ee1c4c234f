"""Minus the discriminator's logit, averaged over the stages of its training and over images moved by a voxel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.detector import DetectorFacts, Normals, Setting
from pipeline.anomaly.discriminator import OnDiscriminator
from pipeline.anomaly.frozen import enough
from pipeline.core.errors import DataError

_LEAST_SPREAD = 1e-6


class AveragedLogit(OnDiscriminator):
    """The mean over the snapshots and the finished discriminator; each one's logit in standard deviations of the
    training normals', so that none outweighs the others.

    Raises:
        DataError: the GAN's training left no snapshots.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        earlier = self.snapshots()
        if not earlier:
            raise DataError(
                "anomaly.detectors: discriminator-average needs the snapshots of a GAN of normal patients. Write it "
                "without @run; if it stands so, do `radaug run` again."
            )
        self._net += earlier

    def fit(self, normals: Normals) -> dict[str, Any]:
        logits = torch.cat([self._averaged(block) for block in enough(normals.train).blocks()])
        self.keep(mean=logits.mean(dim=0), spread=logits.std(dim=0).clamp_min(_LEAST_SPREAD))
        return {"discriminators": len(self._net), "shifts": 2 * self.setting.shape.spatial_dims + 1}

    def score(self, images: Tensor) -> Tensor:
        return -((self._averaged(images) - self.mean) / self.spread).mean(dim=1)

    @torch.no_grad()
    def _averaged(self, images: Tensor) -> Tensor:
        """Logits [B, discriminators], each the mean over all shifts."""
        there = images.to(self.setting.device)
        found = [torch.stack([self.judged_by(net, one) for net in self._net]) for one in moved(there)]
        return torch.stack(found).mean(dim=0).T.float().cpu()


def moved(images: Tensor) -> Iterator[Tensor]:
    """Images [B, C, *spatial] as they are, then moved by one voxel to and fro along each axis; edges are repeated."""
    yield images
    dims = images.ndim - 2
    padded = nn.functional.pad(images, [1] * 2 * dims, mode="replicate")
    for axis in range(dims):
        for start in (0, 2):
            corner = [1] * dims
            corner[axis] = start
            inside = (slice(first, first + side) for first, side in zip(corner, images.shape[2:], strict=True))
            yield padded[(slice(None), slice(None), *inside)]


DETECTOR = DetectorFacts(
    "gan", "Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014; averaged over training as in Zaheer et al., "
    "CVPR 2020", AveragedLogit, needs_gan=True, own_gan=True,
    note="needs the snapshots of a GAN of normal patients: there is no discriminator-average@run",
)  # fmt: skip
