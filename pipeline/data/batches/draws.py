"""Random numbers on the device, from a generator that is saved, the same for one process and for several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Random tensors whose first axis is the batch.

    With several processes each one draws for the whole batch and keeps its own rows, so that `world` processes see
    together what one process would have seen.

    Args:
        generator: on the device; the caller owns it.
        rank, world: this process's number, and how many there are.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, world: int = 1) -> None:
        self.generator, self.rank, self.world = generator, rank, world

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Uniform in [0, 1)."""
        return self._own(torch.rand(self._whole(shape), generator=self.generator, device=self.generator.device))

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Standard normal."""
        return self._own(torch.randn(self._whole(shape), generator=self.generator, device=self.generator.device))

    def randint(self, high: int, shape: Sequence[int]) -> Tensor:
        """Whole numbers in [0, high)."""
        whole = self._whole(shape)
        return self._own(torch.randint(0, high, whole, generator=self.generator, device=self.generator.device))

    def _whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0] * self.world, *shape[1:])

    def _own(self, whole: Tensor) -> Tensor:
        size = len(whole) // self.world
        return whole[self.rank * size : (self.rank + 1) * size]
