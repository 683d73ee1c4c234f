"""AnoGAN: for every image the latent code is sought by gradient descent from which the GAN comes nearest to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.anomaly.detector import DetectorFacts, Normals
from pipeline.anomaly.discriminator import OnGan
from pipeline.core.seeds import derive_seed

_STEPS, _LR = 150, 0.1
_LAMBDA = 0.1
"""Weight of the discriminator's part, as in the paper."""


class AnoGan(OnGan):
    """The slow reference: one search an image and normal class, all from the same first code.

    Adam moves every number by its own gradients, so an image's search does not depend on the others of its batch.
    Score: (1 - 0.1) x the mean absolute residual + 0.1 x that of the discriminator's last features; the map is the
    absolute residual. Of several normal classes the one that comes nearest counts.
    """

    def fit(self, normals: Normals) -> dict[str, Any]:
        return {"steps": _STEPS}

    def score(self, images: Tensor) -> Tensor:
        return self._found(images)[0]

    def map(self, images: Tensor) -> Tensor:
        return self._found(images)[1]

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _found(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [B] and maps [B, *spatial] at the end of the search."""
        there = images.clone().to(self.setting.device)
        random = torch.Generator().manual_seed(derive_seed(self.setting.seed, "code"))
        first = torch.randn(1, self.generator.latent_dim, generator=random).to(self.setting.device)
        scores, maps = [], []
        for condition in self.conditions(images):
            with torch.no_grad():
                wanted = self.activations(there, condition)[-1].flatten(1)
            code = first.repeat(len(there), 1).requires_grad_()
            optimizer = torch.optim.Adam([code], lr=_LR)
            for step in range(_STEPS + 1):
                optimizer.param_groups[0]["lr"] = _LR * (1 - step / _STEPS)
                made = self.generator(code, condition)
                residual = (made - there).abs().mean(dim=1)
                features = (self.activations(made, condition)[-1].flatten(1) - wanted).abs().mean(dim=1)
                score = (1 - _LAMBDA) * residual.flatten(1).mean(dim=1) + _LAMBDA * features
                if step < _STEPS:
                    optimizer.zero_grad(set_to_none=True)
                    score.sum().backward()
                    optimizer.step()
            scores.append(score.detach().float().cpu())
            maps.append(residual.detach().float().cpu())
        nearest = torch.stack(scores).argmin(dim=0)
        each = torch.arange(len(images))
        return torch.stack(scores)[nearest, each], torch.stack(maps)[nearest, each]


DETECTOR = DetectorFacts(
    "gan", "Schlegl et al., Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker "
    "Discovery, IPMI 2017", AnoGan, says_where=True, needs_gan=True,
    note=f"slow: {_STEPS} steps of gradient descent an image and normal class",
)  # fmt: skip
