"""Where batches come from: endless, class-balanced, with a position that can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.data.scaling import Scaling


@dataclass(frozen=True)
class Batch:
    """Images [B, C, *spatial] in [-1, 1] with their labels [B]."""

    images: Tensor
    label: Tensor


class LabelledStream:
    """Class-balanced batches, without replacement within a class until the class is used up.

    Images stay on the device as they are stored and are mapped to [-1, 1] batch by batch.

    Args:
        stored: [N, C, *spatial] in stored numbers.
        label: [N] int64.
        seed: of the order in which images come.
    """

    def __init__(self, stored: Tensor, label: Tensor, scaling: Scaling, batch_size: int, seed: int) -> None:
        self.stored, self.label, self.scaling, self.batch_size = stored, label, scaling, batch_size
        self._random = torch.Generator().manual_seed(seed)
        self._members = [torch.nonzero(label.cpu() == number).squeeze(1) for number in label.unique().tolist()]
        self._order = [self._shuffled(members) for members in self._members]
        self._position = [0] * len(self._members)
        self._turn = 0

    def next(self) -> Batch:
        """The next batch; classes come in turn, so their numbers differ by at most one."""
        rows = torch.tensor([self._next_row() for _ in range(self.batch_size)], device=self.stored.device)
        return Batch(images=self.scaling.to_model(self.stored[rows]), label=self.label[rows])

    def _next_row(self) -> int:
        which = self._turn
        self._turn = (which + 1) % len(self._members)
        if self._position[which] == len(self._order[which]):
            self._order[which], self._position[which] = self._shuffled(self._members[which]), 0
        self._position[which] += 1
        return int(self._order[which][self._position[which] - 1])

    def _shuffled(self, members: Tensor) -> Tensor:
        return members[torch.randperm(len(members), generator=self._random)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": self._random.get_state(),
            "order": self._order,
            "position": self._position,
            "turn": self._turn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random.set_state(state["random"])
        self._order, self._position, self._turn = list(state["order"]), list(state["position"]), state["turn"]
