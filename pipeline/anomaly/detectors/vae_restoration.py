"""Gradient descent from an image towards one that a variational autoencoder finds likely: what it changes is unlike."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts
from pipeline.anomaly.detectors.vae import VariationalAutoencoder
from pipeline.supervised.unlabelled import minus_evidence

_STEPS, _LR = 60, 0.002
"""Of plain gradient descent on minus the bound, summed over voxels; it falls to 0. A voxel's own residual alone would
be closed by 0.002 / 0.1^2, a fifth, in the first step."""
_TOTAL_VARIATION = 2.0
"""Weight of the change's total variation beside minus the bound."""
_SMOOTH = 0.05
"""Differences below it count by their squares, so that the descent settles, whatever the last digits of a sum are."""


class VaeRestoration(VariationalAutoencoder):
    """The most probable healthy image given the one seen: minus the evidence lower bound of the restored image plus the
    total variation of what is changed, descended for a fixed number of steps; the code is its mean.

    Score and map: |restored - image|. Images' costs are added, so the descent of one does not depend on the others of
    its batch.
    """

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        return self.map(images).flatten(1).mean(dim=1)

    @torch.no_grad()
    def map(self, images: Tensor) -> Tensor:
        return (self.restored(images) - images).abs().mean(dim=1)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def restored(self, images: Tensor) -> Tensor:
        """[B, C, *spatial]"""
        there, change = images.clone(), torch.zeros_like(images)
        for step in range(_STEPS):
            change.requires_grad_()
            (slope,) = torch.autograd.grad(self.cost(there, change).sum(), change)
            change = (change - _LR * (1 - step / _STEPS) * slope).detach()
        return there + change

    def cost(self, images: Tensor, change: Tensor) -> Tensor:
        """What is descended: [B]."""
        restored = images + change
        mean, log_variance = self.net.encoder(restored).chunk(2, dim=1)  # type: ignore[operator]
        bound = minus_evidence(restored, self.net.decoder(mean), mean, log_variance)  # type: ignore[operator]
        return bound * images[0].numel() + _TOTAL_VARIATION * total_variation(change)


def total_variation(images: Tensor) -> Tensor:
    """Sum of sqrt(d^2 + _SMOOTH^2) - _SMOOTH over the differences d of neighbours along every axis:
    [B, C, *spatial] -> [B] (Rudin, Osher & Fatemi, 1992; smoothed)."""
    apart = [images.diff(dim=axis).flatten(1) for axis in range(2, images.ndim)]
    return ((torch.cat(apart, dim=1).square() + _SMOOTH**2).sqrt() - _SMOOTH).sum(dim=1)


DETECTOR = DetectorFacts(
    "autoencoding", "You et al., Unsupervised Lesion Detection via Image Restoration with a Normative Prior, MIDL 2019",
    VaeRestoration, says_where=True, trains=True, note=f"{_STEPS} steps of gradient descent an image",
)  # fmt: skip
