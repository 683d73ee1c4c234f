"""Images from a trained generator, by class and seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import sample
from pipeline.adversarial.weights import load_net
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.batches.streams import stored_images
from pipeline.data.cohort.folds import labelled_by_cell, split_ids
from pipeline.nets.conditions import Condition, as_generator, condition_of

_BATCH = 64


class TrainedGenerator:
    """A generator with what is known of it.

    Args:
        directory: of its fit-gan stage.
        inputs: the run's `prepare` and `split` directories; the training images of the generator's fold lend masks,
            source images and attributes to new ones where the family needs them.

    Attributes:
        description: `model.json`: classes, scaling, fold, gan_seed, digests of the weights.
    """

    def __init__(self, directory: Path, inputs: dict[str, Path], device: str = "cpu") -> None:
        net, self.description = load_net(directory, "generator")
        self.net, self.latent_dim = net.to(device), as_generator(net).latent_dim
        self.device = device
        family = FAMILIES[self.description["gan"]["family"]]
        attributes = tuple(self.description["gan"]["attributes"])
        self._sampler: ConditionSampler | None = None
        if family.needs or attributes:
            dataset = open_dataset(inputs["prepare"])
            if self.cells:
                dataset = labelled_by_cell(dataset, str(self.description["site"]))
            rows = dataset.rows(split_ids(inputs["split"], int(self.description["fold"]), "train"))
            images = stored_images(dataset, rows, self.classes, attributes, device)
            positive = [self.classes.index(name) for name in self.description["positive"]]
            self._sampler = ConditionSampler(images, family.needs, positive)

    @property
    def classes(self) -> list[str]:
        return list(self.description["classes"])

    @property
    def cells(self) -> dict[str, tuple[str, str]]:
        """Where it is asked by site and class: each of `classes` -> its site and its class."""
        return {name: (site, label) for name, (site, label) in self.description.get("cells", {}).items()}

    def images(self, label: str, num: int, seed: int, truncation_psi: float = 1.0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (sample_seed, image [C, *spatial] in [-1, 1]) for `num` images of class `label`.

        Every image has a seed of its own, so that any one of them can be made again. Below 1, `truncation_psi` gives
        images nearer to the mean, and less different from each other.
        """
        for start in range(0, num, _BATCH):
            seeds = [derive_seed(seed, label, index) for index in range(start, min(start + _BATCH, num))]
            z, conditions = zip(*(self._asked(label, one) for one in seeds), strict=True)
            batch = sample(self.net, torch.cat(z).to(self.device), _stacked(conditions), truncation_psi)
            yield from zip(seeds, batch.numpy(), strict=True)

    def _asked(self, label: str, seed: int) -> tuple[torch.Tensor, Condition]:
        random = torch.Generator().manual_seed(seed)
        z = torch.randn(1, self.latent_dim, generator=random)
        number = torch.tensor([self.classes.index(label)])
        if self._sampler is None:
            return z, condition_of(number.to(self.device))
        return z, self._sampler.sample(number, random)


def _stacked(conditions: tuple[Condition, ...]) -> Condition:
    def part(name: str) -> torch.Tensor | None:
        values = [getattr(condition, name) for condition in conditions]
        return None if values[0] is None else torch.cat(values)

    return Condition(label=part("label"), mask=part("mask"), attributes=part("attributes"), source=part("source"))
