"""What an attack is: it scores images of people by how much the generator seems to know them, blind to who is who."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet


@dataclass(frozen=True)
class Images:
    """Some images of a data set, read block by block.

    Attributes:
        change: of each block, with random numbers of its own; None = the images as they are.
    """

    dataset: DataSet
    rows: np.ndarray
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Tensor]:
        """The images in their order, [B, C, *spatial] in [-1, 1] on the CPU."""
        random = torch.Generator().manual_seed(self.seed)
        for block in self.dataset.blocks(self.rows):
            yield block if self.change is None else self.change(block, random)


@dataclass(frozen=True)
class Candidates:
    """Images of people, some of whom the generator learned from. Who did is not among what an attack is told.

    Attributes:
        label: [N] class names; empty texts where classes do not count.
        patient: [N] a number for each patient.
    """

    images: Images
    label: np.ndarray
    patient: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def halves_of_patients(candidates: Candidates, seed: int) -> np.ndarray:
    """Every other patient, in random order, [N] bool: what learns on images of one half is asked about the other."""
    number = int(candidates.patient.max()) + 1
    return np.asarray((numpy_generator(seed, "halves").permutation(number) % 2 == 0)[candidates.patient])


@dataclass(frozen=True)
class Target:
    """What is attacked.

    Attributes:
        synthetic: images of the generator, as they would be shared.
        seed: of all the attack's random numbers.
        inputs: directories of the run: `prepare`, `split`, and `fit-gan` for attacks that hold the nets themselves, and
            `shadow-gan-K` and `shadow-K` (images) for each shadow generator, from 0 on.
    """

    synthetic: Images
    config: PrivacyConfig
    hardware: Hardware
    seed: int
    inputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return self.hardware.device


Scores = Callable[[Target, Candidates], np.ndarray]


@dataclass(frozen=True)
class AttackFacts:
    """What an attack's file says of it.

    Attributes:
        source: the paper.
        scores: scores [N] of the candidates, large = looks like a member; NaN for those that were not tried.
        holds: what the attacker holds: images of the generator, the generator, or its discriminator too.
        gates: whether it has a say in the release; one that is for information only has none.
        guesses: of an attack that guesses values of patients: whether each guess is right, by column, [N] of 0 and 1,
            NaN where the truth is not known.
        note: what it cannot do, or how it differs from the paper, in a sentence.
    """

    source: str
    scores: Scores
    holds: Literal["images", "generator", "discriminator"] = "images"
    gates: bool = True
    guesses: Callable[[Target, Candidates], dict[str, np.ndarray]] | None = None
    note: str = ""
