"""The nets of a training while it is still going on, for detectors that ask what a discriminator knew earlier."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.weights import refresh_batch_norm, save_nets
from pipeline.core.layout import MODEL, SNAPSHOTS
from pipeline.core.seeds import derive_seed

SHARES = (0.125, 0.25, 0.5, 0.75)
"""Of the training's images, after which a snapshot is left."""
_NETS = ("generator", "discriminator")


class Snapshots:
    """Writes `snapshots/NUM_IMAGES/`, each to be read as the finished nets are: the averaged generator, and the
    discriminator as it was.

    Args:
        description: of the finished nets.
        seed: of the batch norm's statistics.
    """

    def __init__(self, out_dir: Path, sampler: ConditionSampler, description: dict[str, Any], seed: int) -> None:
        self.folder, self.sampler, self.description, self.seed = out_dir / SNAPSHOTS, sampler, description, seed

    def __call__(self, training: GanTraining) -> None:
        """Leave one if the last step passed a share; nothing of the training changes."""
        now, before = training.num_images, training.num_images - training.images_per_step
        if not any(before < share * training.total_images <= now for share in SHARES):
            return
        training.stepper.read_faults()
        nets = {**training.context.nets, **training.ema.nets}
        kept = {name: copy.deepcopy(nets[name]) for name in _NETS if name in nets}
        refresh_batch_norm(
            kept["generator"], self.sampler, len(self.description["classes"]), derive_seed(self.seed, "norms")
        )
        place = self.folder / f"{now:09d}"
        place.mkdir(parents=True, exist_ok=True)
        save_nets(place, kept, self.description | {"num_images": now})

    def forget_after(self, num_images: int) -> None:
        """Take away those of images that the training has not seen."""
        for place in self.folder.glob("*"):
            if int(place.name) > num_images:
                shutil.rmtree(place)


def snapshots_of(gan: Path) -> list[Path]:
    """The directories of a GAN's snapshots, the earliest first; none where its training left none."""
    return sorted(place.parent for place in (gan / SNAPSHOTS).glob(f"*/{MODEL}"))
