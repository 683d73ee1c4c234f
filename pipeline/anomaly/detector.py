"""What a detector is: it learns from normal images, scores an image, and may say where in it the score comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.anomaly import AnomalyConfig
from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.streams import StoredImages, images_at
from pipeline.nets.sizes import ImageShape

Group = Literal["gan", "autoencoding", "features", "plain", "self-supervised"]


NOTHING_MIXED = (
    "there is no training image that is abnormal or unlabelled, so that there is nothing to translate from. Add "
    "unlabelled images, or leave the detector out of anomaly.detectors."
)


@dataclass(frozen=True)
class ImageSet:
    """Some images of a data set, read block by block. Labels are not among what it gives."""

    dataset: DataSet
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[Tensor]:
        """The images in their order, [B, C, *spatial] in [-1, 1] on the CPU."""
        return self.dataset.blocks(self.rows)

    def stored(self, device: str) -> StoredImages:
        """For a `Stream`; all of one class."""
        return images_at(self.dataset, self.rows, torch.zeros(len(self.rows), dtype=torch.int64), device)


@dataclass(frozen=True)
class Normals:
    """What a detector learns from.

    Attributes:
        train: images of the fold's training patients who have normal images only.
        val: the same of validation patients: for choices that need images which nothing was fitted to.
        mixed: images of training and unlabelled patients, normal or not, whose labels nobody reads.
    """

    train: ImageSet
    val: ImageSet
    mixed: ImageSet

    @property
    def nothing_mixed(self) -> bool:
        """Whether `mixed` holds no image but those of `train`."""
        known = set(self.train.rows) if self.mixed.dataset is self.train.dataset else set()
        return set(self.mixed.rows) <= known


@dataclass(frozen=True)
class Setting:
    """What a detector is built for; with its weights it is all that scoring needs.

    Attributes:
        config: budgets and sizes.
        normal: names of the normal classes.
        seed: of all its random numbers.
        gan: directory of the trained GAN that it looks through, if it needs one.
        features: the user's network for feature maps, if one is named.
    """

    config: AnomalyConfig
    shape: ImageShape
    normal: tuple[str, ...]
    hardware: Hardware
    seed: int
    gan: Path | None = None
    features: Path | None = None

    @property
    def device(self) -> str:
        return self.hardware.device


class Detector(nn.Module):
    """A detector of one setting. Its weights and whatever `keep` was given are its state, and all of it.

    Scores of an image depend on that image alone: not on the others of its batch, nor on their order.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting

    def fit(self, normals: Normals) -> dict[str, Any]:
        """Learn; returns figures worth showing.

        Raises:
            DataError: there are too few normal images for this detector.
        """
        raise NotImplementedError

    def score(self, images: Tensor) -> Tensor:
        """Images [B, C, *spatial] in [-1, 1] on the CPU -> scores [B], float32 on the CPU; large = unlike normal."""
        raise NotImplementedError

    def map(self, images: Tensor) -> Tensor | None:
        """Where the score comes from, [B, *spatial] on the CPU, large = unlike normal; None where it cannot say."""
        return None

    def keep(self, **tensors: Tensor) -> None:
        """Make tensors part of the state, as buffers of these names."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().to("cpu", copy=True).contiguous())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the state of a fitted detector of the same setting."""
        weights = {name for name, _ in self.named_parameters()} | {name for name, _ in self.named_buffers()}
        self.keep(**{name: tensor for name, tensor in state.items() if "." not in name and name not in weights})
        self.load_state_dict(state)


@dataclass(frozen=True)
class DetectorFacts:
    """What a detector's file says of it.

    Attributes:
        group: of the table of detectors.
        source: the paper.
        make: builds it, not yet fitted.
        says_where: whether it has maps.
        needs_gan: whether it looks through a trained GAN.
        needs_mixed: whether it learns from abnormal or unlabelled training images too, whose labels it never reads.
        own_gan: whether that must be one of normal patients, with its snapshots: the run's GAN will not do.
        trains: whether it trains a network for `anomaly.steps` steps, which is what takes its time.
        dimensions: spatial dimensions that it works in.
        note: what it cannot do, or how it differs from the paper, in a sentence.
    """

    group: Group
    source: str
    make: Callable[[Setting], Detector]
    says_where: bool = False
    needs_gan: bool = False
    needs_mixed: bool = False
    trains: bool = False
    own_gan: bool = False
    dimensions: tuple[int, ...] = (2, 3)
    note: str = ""
