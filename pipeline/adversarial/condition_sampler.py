"""What images are asked for with: classes, and the masks, attributes or source images that training images lend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        sources: number of a class -> those that a translated image of it may come from; None = all of the other domain.
    """

    images: StoredImages
    needs: Sequence[Need] = ()
    positive: Sequence[int] = ()
    sources: Mapping[int, Sequence[int]] | None = None

    def sample(self, label: Tensor, random: torch.Generator, source_rows: Tensor | None = None) -> Condition:
        """The condition for images of classes `label` [B], from randomly chosen training images.

        Mask and attributes of one image come from one training image of its class; its source is of the other domain.

        Args:
            random: on the CPU.
            source_rows: which images are translated [B]; None = some that are drawn.
        """
        numbers = label.tolist()
        own = self._draw([[number] for number in numbers], random)
        source = None
        if "source" in self.needs:
            if source_rows is None:
                source_rows = self._draw([self._source_classes(number) for number in numbers], random)
            source = self.images.batch(source_rows).images
        batch = self.images.batch(own)
        return Condition(
            label=label.to(self.images.label.device, torch.int64),
            mask=batch.mask if "mask" in self.needs else None,
            attributes=batch.attributes,
            source=source,
        )

    def sources_once(self, label: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Which of the images of classes `label` [B] have a source to themselves [N], and those sources [N], by lot.

        A class has as many images as sources at most: two translations of one source are twins. Where nothing is
        translated, all [B] are kept, and there are no sources.
        """
        if "source" not in self.needs:
            return torch.arange(len(label)), None
        sources = torch.full((len(label),), -1)
        for number in label.unique().tolist():
            own, found = torch.nonzero(label == number)[:, 0], self.translated(number)
            some = found[torch.randperm(len(found), generator=random)[: len(own)]]
            sources[own[: len(some)]] = some
        kept = torch.nonzero(sources >= 0)[:, 0]
        return kept, sources[kept]

    def translated(self, number: int) -> Tensor:
        """Which images can be translated to the class `number`, in order."""
        label = self.images.label.cpu()
        return torch.nonzero(torch.isin(label, torch.tensor(self._source_classes(number))))[:, 0]

    def _source_classes(self, number: int) -> list[int]:
        if self.sources is not None:
            return list(self.sources[number])
        classes = sorted(set(self.images.label.unique().tolist()) - {-1})
        return [one for one in classes if (one in self.positive) != (number in self.positive)]

    def _draw(self, classes: Sequence[Sequence[int]], random: torch.Generator) -> Tensor:
        """One row for every entry, of an image whose class is among the entry's."""
        label = self.images.label.cpu()
        members = {
            key: torch.nonzero(torch.isin(label, torch.tensor(key)))[:, 0] for key in {tuple(c) for c in classes}
        }
        rows = [members[tuple(c)] for c in classes]
        # a class that no training image has lends nothing: what is made of it is another site's image, translated
        picked = [int(part[int(torch.randint(len(part), (1,), generator=random))]) if len(part) else 0 for part in rows]
        return torch.tensor(picked, device=self.images.label.device)
