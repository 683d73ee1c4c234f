"""Images from a trained generator, by class and seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adversarial.loop import sample
from pipeline.adversarial.weights import load_net
from pipeline.core.seeds import derive_seed

_BATCH = 64


class TrainedGenerator:
    """A generator with what is known of it.

    Attributes:
        description: `model.json`: classes, scaling, fold, gan_seed, digests of the weights.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        net, self.description = load_net(directory, "generator")
        self.net: Any = net.to(device)
        self.device = device

    @property
    def classes(self) -> list[str]:
        return list(self.description["classes"])

    def images(self, label: str, num: int, seed: int, truncation_psi: float = 1.0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (sample_seed, image [C, *spatial] in [-1, 1]) for `num` images of class `label`.

        Every image has a seed of its own, so that any one of them can be made again. `truncation_psi` scales z:
        below 1 images are nearer to the class's mean, and less different from each other.
        """
        number = self.classes.index(label)
        for start in range(0, num, _BATCH):
            seeds = [derive_seed(seed, label, index) for index in range(start, min(start + _BATCH, num))]
            z = torch.stack([self._noise(one) for one in seeds]) * truncation_psi
            batch = sample(self.net, torch.full((len(seeds),), number, device=self.device), z.to(self.device))
            yield from zip(seeds, batch.numpy(), strict=True)

    def _noise(self, seed: int) -> torch.Tensor:
        return torch.randn(self.net.latent_dim, generator=torch.Generator().manual_seed(seed))
