"""Images from a trained generator, by class and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.adversarial.cells import sources_within_class
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import sample
from pipeline.adversarial.weights import load_net
from pipeline.config.families import validate_gan
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
        attributes: what it can be asked by beside the class: by name, what the fold's labelled training images have of
            it, as the generator reads it (standardised) and as the manifest has it, [N, 2].
        needs_source: it changes images of the other domain.
    """

    def __init__(self, directory: Path, inputs: dict[str, Path], device: str = "cpu") -> None:
        net, self.description = load_net(directory, "generator")
        self.net, self.latent_dim = net.to(device), as_generator(net).latent_dim
        self.device = device
        family = FAMILIES[self.description["gan"]["family"]]
        names = tuple(self.description["gan"]["attributes"])
        self.attributes: dict[str, np.ndarray] = {}
        self.needs_source = "source" in family.needs
        self._sampler: ConditionSampler | None = None
        if family.needs or names:
            dataset = open_dataset(inputs["prepare"])
            if self.cells:
                dataset = labelled_by_cell(dataset, str(self.description["site"]))
            rows = dataset.rows(split_ids(inputs["split"], int(self.description["fold"]), "train"))
            images = stored_images(dataset, rows, self._names, names, device)
            if images.attributes is not None:
                labelled = (images.label >= 0).cpu().numpy()
                read, own = images.attributes.cpu().numpy(), dataset.numbers(rows, names)
                columns = np.stack([read, own], axis=2)[labelled]
                self.attributes = {name: columns[:, place] for place, name in enumerate(names)}
            positive = [self._names.index(name) for name in self._names if self._is_positive(name)]
            sources = sources_within_class(validate_gan(self.description["gan"]), self._names, self.cells)
            self._sampler = ConditionSampler(images, family.needs, positive, sources)
            self._ids = dataset.manifest["image_id"].iloc[rows].tolist()

    @property
    def _names(self) -> list[str]:
        """Classes, or cells of site and class."""
        return list(self.cells) or list(self.description["classes"])

    @property
    def classes(self) -> list[str]:
        """What it can be asked for: classes, or cells of site and class, if there are sources to translate."""
        if self._sampler is None or self._sampler.sources is None:
            return self._names
        return [name for number, name in enumerate(self._names) if len(self._sampler.translated(number))]

    def _number(self, name: str) -> int:
        """What the nets call it: its own number, or its site's where they know sites alone."""
        known = list(self.description["classes"])
        return known.index(name if name in known else self.cells[name][0])

    def _is_positive(self, name: str) -> bool:
        return self.description["classes"][self._number(name)] in self.description["positive"]

    @property
    def cells(self) -> dict[str, tuple[str, str]]:
        """Where it is asked by site and class: each of `classes` -> its site and its class."""
        return {name: (site, label) for name, (site, label) in self.description.get("cells", {}).items()}

    def images(self, label: str, num: int, seed: int, truncation_psi: float = 1.0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (sample_seed, image [C, *spatial] in [-1, 1]) for `num` images of class `label`.

        Every image has a seed of its own, so that any one of them can be made again. Below 1, `truncation_psi` gives
        images nearer to the mean, and less different from each other. A translator between sites has one image for each
        source: it takes them in turn, whatever the seed (`sources`).
        """
        for start in range(0, num, _BATCH):
            numbers = range(start, min(start + _BATCH, num))
            seeds = [derive_seed(seed, label, index) for index in numbers]
            asked = [self.asked(label, one, index) for one, index in zip(seeds, numbers, strict=True)]
            yield from zip(seeds, self.made(asked, truncation_psi), strict=True)

    def sources(self, label: str, num: int) -> list[str]:
        """Ids of the training images that the first `num` images of class `label` are made from; empty where sources
        are drawn, or images are made from noise."""
        if self._sampler is None or self._sampler.sources is None:
            return []
        rows = self._sampler.translated(self._names.index(label)).tolist()
        return [self._ids[rows[index % len(rows)]] for index in range(num)]

    def cycle_errors(self, label: str, images: np.ndarray) -> list[float]:
        """How far each of the first images [N, C, *spatial] of class `label` is from its source once it is translated
        back, the mean over voxels in shares of the window; empty where no sources are taken in turn."""
        if self._sampler is None or self._sampler.sources is None:
            return []
        rows = self._sampler.translated(self._names.index(label))
        of_nets = torch.tensor([self._number(name) for name in self._names])
        back = of_nets[self._sampler.images.label.cpu()[rows]]
        found: list[float] = []
        for start in range(0, len(images), _BATCH):
            some = torch.from_numpy(images[start : start + _BATCH]).to(self.device)
            turn = torch.arange(start, start + len(some)) % len(rows)
            source = self._sampler.images.batch(rows[turn]).images.cpu()
            asked = Condition(label=back[turn].to(self.device), source=some)
            z = torch.zeros(len(some), self.latent_dim, device=self.device)
            found += (sample(self.net, z, asked) - source).abs().flatten(1).mean(dim=1).div(2).tolist()
        return found

    def _source(self, label: str, index: int) -> torch.Tensor | None:
        """Which image the one numbered `index` is made from [1]; None = one that is drawn."""
        if self._sampler is None or self._sampler.sources is None:
            return None
        rows = self._sampler.translated(self._names.index(label))
        return rows[index % len(rows)].view(1)

    def made(self, asked: Sequence[tuple[torch.Tensor, Condition]], truncation_psi: float = 1.0) -> np.ndarray:
        """Images [B, C, *spatial] in [-1, 1] of latents and conditions as `asked` gives them."""
        z, conditions = zip(*asked, strict=True)
        return sample(self.net, torch.cat(z).to(self.device), _stacked(conditions), truncation_psi).numpy()

    def asked(self, label: str, seed: int, index: int = 0) -> tuple[torch.Tensor, Condition]:
        """The latent [1, latent_dim] and the condition of the image of class `label` numbered `index`, by its seed."""
        random = torch.Generator().manual_seed(seed)
        z = torch.randn(1, self.latent_dim, generator=random)
        number = torch.tensor([self._names.index(label)])
        if self._sampler is None:
            return z, condition_of(number.to(self.device))
        found = self._sampler.sample(number, random, self._source(label, index))
        return z, replace(found, label=torch.tensor([self._number(label)], device=self.device))


def _stacked(conditions: Sequence[Condition]) -> Condition:
    def part(name: str) -> torch.Tensor | None:
        values = [getattr(condition, name) for condition in conditions]
        return None if values[0] is None else torch.cat(values)

    return Condition(label=part("label"), mask=part("mask"), attributes=part("attributes"), source=part("source"))
