"""What a training leaves while it runs: statistics, progress, sample grids and the file to resume from."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.adversarial.checkpoints import CheckpointError, read_checkpoint, save_checkpoint, take_up
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.loop import GanTraining, sample
from pipeline.adversarial.pictures import save_grid
from pipeline.adversarial.rollback import Watch, memory_of
from pipeline.adversarial.snapshots import Snapshots
from pipeline.config.gan import GanConfig
from pipeline.core.layout import GRIDS, TIMED_LOG
from pipeline.core.progress import Progress
from pipeline.core.seeds import derive_seed
from pipeline.nets.conditions import as_generator

logger = logging.getLogger(__name__)
RESUME = "resume.pt"
_GRID_COLUMNS = 12


class Log:
    """Watches a training: statistics, progress, sample grids, resume files, and snapshots where they are wanted.

    Attributes:
        earlier_s: seconds of training in processes that ended before their time, up to their last statistics.
    """

    def __init__(
        self,
        out_dir: Path,
        gan: GanConfig,
        name: str,
        num_classes: int,
        seed: int,
        sampler: ConditionSampler,
        watch: Watch,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.out_dir, self.sampler, self.watch, self.snapshots = out_dir, sampler, watch, snapshots
        self.num_classes, self.seed = num_classes, seed
        self.stats = out_dir / TIMED_LOG
        self.grids = out_dir / GRIDS
        rows = [json.loads(line) for line in _lines(self.stats)]
        self.earlier_s = float(rows[-1].get("seconds", 0.0)) if rows else 0.0
        self._started = time.monotonic()
        total = gan.num_images
        self.progress = Progress(name, total, "images")
        self._log_every = max(gan.batch_size, total // 200)
        self._grid_every = max(gan.batch_size, total // gan.snapshots)
        self._save_every = max(gan.batch_size, total // gan.checkpoints)

    def __call__(self, training: GanTraining) -> None:
        batch = training.images_per_step
        self.progress.update(training.num_images)
        if _crossed(training.num_images, batch, self._log_every):
            self._write_stats(training)
        if _crossed(training.num_images, batch, self._grid_every):
            self.draw(training)
        if self.snapshots is not None:
            self.snapshots(training)
        if _crossed(training.num_images, batch, self._save_every):
            save_resume(self.out_dir / RESUME, training, self.watch)

    def resume(self, training: GanTraining) -> None:
        """Take back the statistics, grids and snapshots of images that `training` has not seen."""
        kept = [line for line in _lines(self.stats) if json.loads(line)["num_images"] <= training.num_images]
        self.stats.write_text("".join(kept), encoding="utf-8")
        for grid in self.grids.glob("*.png"):
            if int(grid.stem) > training.num_images:
                grid.unlink()
        if self.snapshots is not None:
            self.snapshots.forget_after(training.num_images)
        self.progress = Progress(self.progress.what, self.progress.total, self.progress.unit, done=training.num_images)

    def _write_stats(self, training: GanTraining) -> None:
        training.stepper.read_faults()
        seconds = round(self.earlier_s + time.monotonic() - self._started, 1)
        speed = {"images_per_s": round(self.progress.rate, 1), "seconds": seconds}
        row = {"num_images": training.num_images} | speed | last_losses(training)
        with self.stats.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def draw(self, training: GanTraining) -> None:
        """A grid of samples, for the film strip."""
        training.stepper.read_faults()
        images = fixed_sample(training.ema.nets["generator"], self.sampler, self.num_classes, self.seed)
        save_grid(self.grids / f"{training.num_images:09d}.png", images, _GRID_COLUMNS)


def last_losses(training: GanTraining) -> dict[str, float]:
    """The last step's losses and mean logits, as numbers."""
    players = {player.name for player in training.recipe.players}
    return {
        f"{name}_loss" if name in players else name: round(float(value), 5) for name, value in training.figures.items()
    }


def fixed_sample(generator: nn.Module, sampler: ConditionSampler, num_classes: int, seed: int) -> np.ndarray:
    """The same z and sampler for every grid: `_GRID_COLUMNS` images a class, a row a class, not picked."""
    random = torch.Generator().manual_seed(derive_seed(seed, "grid"))
    label = torch.arange(num_classes).repeat_interleave(_GRID_COLUMNS)
    z = torch.randn(len(label), as_generator(generator).latent_dim, generator=random).to(sampler.images.device)
    return sample(generator, z, sampler.sample(label, random)).numpy()


def load_resume(path: Path, training: GanTraining, watch: Watch | None = None) -> None:
    """Continue from the resume file if a whole one of this training is there; else leave all as it is."""
    if not path.is_file():
        return
    try:
        state = read_checkpoint(path)
        memory = None if watch is None else memory_of(state)
        take_up(training, state)
    except CheckpointError as error:
        logger.warning("%s: %s; training begins anew", RESUME, error)
        return
    if watch is not None and memory is not None:
        watch.memory = memory
    logger.info("training goes on at %d images", training.num_images)


def save_resume(path: Path, training: GanTraining, watch: Watch | None = None) -> None:
    remembered = {} if watch is None else {"watch": watch.state_dict()}
    save_checkpoint(path, training.state_dict() | remembered)


def _crossed(num_images: int, batch: int, every: int) -> bool:
    return num_images // every > (num_images - batch) // every


def _lines(path: Path) -> list[str]:
    """Whole lines of a log: a killed process may have left half a line."""
    return (
        [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        if path.is_file()
        else []
    )
