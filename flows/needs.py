"""What a run needs of disk and memory, reckoned before it starts, and the refusal where the machine has less."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flows.plan import TRAINS_GAN, Step
from pipeline.config.experiment import Experiment
from pipeline.core.errors import UserError
from pipeline.core.layout import SPLITS_FILE
from pipeline.core.threads import PROCESS_MIB, available_memory_mib

_MIB = 2**20
_STORED_BYTES = 2
"""Of a voxel: HU and values without a unit; 8-bit images take half."""
_RESUME_COPIES = 12
"""Of the nets' weights, while a GAN is trained: themselves, their average and two moments, in the checkpoint, in the
next one while it is written, and in the last one that the collapse watch found good."""
_STEP_MIB = 1.0
"""Tables and pictures of a step."""
_SYNTHETIC = ("synthesise", "synthesise-shadow")


@dataclass(frozen=True)
class Needs:
    """What steps need: MiB on the disk at least, and MiB of memory for the largest process among them."""

    disk_mib: float
    memory_mib: float


def needs_of(steps: Iterable[Step], experiment: Experiment, images: int) -> Needs:
    """What `steps` need, where none of them is in the cache.

    The disk is a least: arrays, weights and checkpoints are reckoned, and a MiB a step for all the rest. Memory of a
    GPU is not reckoned: a GAN that does not fit there goes on with its batch in more parts. Nor is that of a cluster.

    Args:
        images: of the data set; 0 where they are not known yet.
    """
    from pipeline.adversarial import gan_cost
    from pipeline.core.compute import resolve_hardware
    from pipeline.supervised import classifier_cost

    kinds = Counter(step.kind for step in steps)
    gans = sum(kinds[kind] for kind in TRAINS_GAN)
    image = math.prod(experiment.data.shape) * _STORED_BYTES / _MIB
    weights = gan_cost.weights_mib(experiment) if gans else 0.0
    made = experiment.synthesis.samples_per_class * len(experiment.data.classes)
    disk = image * (images * kinds["prepare"] + made * sum(kinds[kind] for kind in _SYNTHETIC))
    disk += weights * (gans + _RESUME_COPIES) + _STEP_MIB * kinds.total()
    memory = 0.0 if experiment.compute.cluster else PROCESS_MIB
    if memory and resolve_hardware(experiment.compute.device).device == "cpu":
        memory = max(
            memory,
            gan_cost.memory_mib(experiment, weights) if gans else 0.0,
            classifier_cost.memory_mib(experiment) if kinds["downstream"] else 0.0,
        )
    return Needs(disk, memory)


def require_room(needs: Needs, cache: Path) -> None:
    """Check that this machine has what is needed at this moment.

    Raises:
        UserError: the disk of `cache` or the memory is too small; the message says what there is and the mend.
    """
    free, memory = shutil.disk_usage(_existing(cache)).free / _MIB, available_memory_mib()
    if needs.disk_mib > free:
        raise UserError(
            f"{cache}: this needs at least {in_gib(needs.disk_mib)} of disk, and {in_gib(free)} are free. Free some "
            "(`radaug clean`), set RADAUG_CACHE to a folder on a larger disk, ask for fewer GANs or synthetic images, "
            "or start it all the same with --yes."
        )
    if needs.memory_mib > memory:
        raise UserError(
            f"This needs about {in_gib(needs.memory_mib)} of memory for its largest process, and {in_gib(memory)} are "
            "free. Take a smaller gan.batch_size or classifier.batch_size, a larger gan.accumulate or a smaller "
            "data.spatial_size, wait for other programs to end, or start it all the same with --yes."
        )


def count_images(split: Path) -> int:
    """Images of a finished split."""
    return int(pd.read_csv(split / SPLITS_FILE, usecols=["image_id"], dtype=str)["image_id"].nunique())


def in_gib(mib: float) -> str:
    """`1.2 GiB`, or in MiB below a tenth of that."""
    return f"{mib / 1024:.1f} GiB" if mib >= 102.4 else f"{mib:.0f} MiB"


def _existing(place: Path) -> Path:
    """`place`, or the nearest folder above it that is there."""
    return next(folder for folder in (place.resolve(), *place.resolve().parents) if folder.is_dir())
