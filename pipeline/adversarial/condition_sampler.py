"""What images are asked for with: classes, and the masks, attributes or source images that training images lend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.adversarial.family import Need
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition


@dataclass(frozen=True)
class ConditionSampler:
    """Draws conditions for new images: training images of the fold lend their masks, attributes or themselves.

    Attributes:
        needs: what the family makes images from, beside z.
        positive: class numbers of domain b; a translated image comes from the other domain than its class.
    """

    images: StoredImages
    needs: Sequence[Need] = ()
    positive: Sequence[int] = ()

    def sample(self, label: Tensor, random: torch.Generator) -> Condition:
        """The condition for images of classes `label` [B], from randomly chosen training images.

        Mask and attributes of one image come from one training image of its class; its source is of the other domain.

        Args:
            random: on the CPU.
        """
        numbers = label.tolist()
        own = self._draw([[number] for number in numbers], random)
        source = None
        if "source" in self.needs:
            classes = set(self.images.label.unique().tolist()) - {-1}
            other = {n: [c for c in classes if (c in self.positive) != (n in self.positive)] for n in set(numbers)}
            source = self.images.batch(self._draw([other[number] for number in numbers], random)).images
        batch = self.images.batch(own)
        return Condition(
            label=label.to(self.images.label.device, torch.int64),
            mask=batch.mask if "mask" in self.needs else None,
            attributes=batch.attributes,
            source=source,
        )

    def _draw(self, classes: Sequence[Sequence[int]], random: torch.Generator) -> Tensor:
        """One row for every entry, of an image whose class is among the entry's."""
        label = self.images.label.cpu()
        members = {
            key: torch.nonzero(torch.isin(label, torch.tensor(key)))[:, 0] for key in {tuple(c) for c in classes}
        }
        rows = [members[tuple(c)] for c in classes]
        picked = [int(part[int(torch.randint(len(part), (1,), generator=random))]) for part in rows]
        return torch.tensor(picked, device=self.images.label.device)
