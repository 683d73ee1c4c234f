"""Stage `fit-gan`: train one conditional GAN on the training patients of one fold, and nobody else."""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import Training, sample, train
from pipeline.adversarial.pictures import save_film_strip, save_grid
from pipeline.adversarial.recipe import ImageShape
from pipeline.adversarial.stepping import Ema, Stepper
from pipeline.adversarial.turns import Table
from pipeline.adversarial.weights import refresh_batch_norm, save_nets
from pipeline.config.experiment import Experiment, SnganConfig
from pipeline.config.section import Section
from pipeline.core.cache import TIMED_LOG
from pipeline.core.compute import Hardware, autocast, place, resolve_hardware
from pipeline.core.files import atomic_path
from pipeline.core.progress import Progress
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.augmentation import Augmenter
from pipeline.data.dataset import DataSet, open_dataset
from pipeline.data.scaling import Scaling
from pipeline.data.split import split_ids
from pipeline.data.streams import LabelledStream

logger = logging.getLogger(__name__)
RESUME = "resume.pt"
_GRID_COLUMNS = 12


class FitConfig(Section):
    """What the training of one generator depends on."""

    gan: SnganConfig
    classes: tuple[str, ...]
    fold: int
    gan_seed: int
    seed: int
    device: str
    precision: str
    deterministic: bool


def fit_config(experiment: Experiment, fold: int, gan_seed: int) -> FitConfig:
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    return FitConfig(
        # how many generators there are, and how many images are drawn from each, does not change this one
        gan=experiment.gan.model_copy(update={"gan_seeds": 1, "samples_per_class": 200, "truncation_psi": 1.0}),
        classes=experiment.data.classes,
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "gan", fold, gan_seed),
        device=hardware.device,
        precision=hardware.precision,
        deterministic=experiment.compute.deterministic,
    )


def run(config: FitConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Train on the fold's `train` images; leaves weights, grids, the film strip and `stats.jsonl`.

    A directory with a resume file is continued: on the CPU with the same result, bit for bit.

    Raises:
        NonFiniteLoss: a loss became NaN or infinite.
    """
    dataset = open_dataset(inputs["prepare"])
    rows = dataset.rows(split_ids(inputs["split"], config.fold, "train"))
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    training = start(config, dataset, rows)
    log = Log(out_dir, config)
    log.resume(training)
    train(training, config.gan.num_images, log)
    figures = {
        "num_images": training.num_images,
        "train_images": len(rows),
        "images_per_s": round(log.progress.rate, 1),
    }
    _finish(config, dataset, training, out_dir)
    return Record(stage="fit-gan", figures=figures | last_losses(training))


def start(config: FitConfig, dataset: DataSet, rows: np.ndarray) -> Training:
    """A training at its first step: nets, optimisers, streams and random numbers, all from `config.seed`."""
    hardware = Hardware(config.device, config.precision)
    stored = torch.from_numpy(np.ascontiguousarray(dataset.images[rows])).to(hardware.device)
    label = dataset.labels(rows, config.classes).to(hardware.device)
    return assemble(config.gan, stored, label, dataset.scaling, len(config.classes), hardware, config.seed)


def assemble(
    gan: SnganConfig,
    stored: torch.Tensor,
    label: torch.Tensor,
    scaling: Scaling,
    num_classes: int,
    hardware: Hardware,
    seed: int,
) -> Training:
    """A training at its first step on images [N, C, *spatial] as stored, with labels [N], both on the device."""
    shape = ImageShape(tuple(stored.shape[2:]), stored.shape[1], num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        nets, recipe = FAMILIES[gan.family].build(gan, shape)
    placed = {name: place(net, hardware) for name, net in nets.items()}
    random = torch.Generator(hardware.device).manual_seed(derive_seed(seed, "noise"))
    return Training(
        recipe=recipe,
        table=Table(placed, Augmenter(gan.augment), random, autocast(hardware)),
        stepper=Stepper(placed, recipe),
        ema=Ema(placed["generator"], gan.ema),
        stream=LabelledStream(stored, label, scaling, gan.batch_size, derive_seed(seed, "order")),
    )


class Log:
    """Watches a training: statistics, progress, sample grids, resume files."""

    def __init__(self, out_dir: Path, config: FitConfig) -> None:
        self.out_dir, self.config = out_dir, config
        self.stats = out_dir / TIMED_LOG
        self.grids = out_dir / "grids"
        total = config.gan.num_images
        self.progress = Progress(f"GAN of fold {config.fold}, seed {config.gan_seed}", total, "images")
        self._log_every = max(config.gan.batch_size, total // 200)
        self._grid_every = max(config.gan.batch_size, total // config.gan.snapshots)
        self._save_every = max(config.gan.batch_size, total // config.gan.checkpoints)

    def __call__(self, training: Training) -> None:
        batch = training.stream.batch_size
        self.progress.update(training.num_images)
        if _crossed(training.num_images, batch, self._log_every):
            self._write_stats(training)
        if _crossed(training.num_images, batch, self._grid_every):
            self._draw(training)
        if _crossed(training.num_images, batch, self._save_every):
            save_resume(self.out_dir / RESUME, training)

    def resume(self, training: Training) -> None:
        """Continue from the resume file, if a whole one is there; later statistics and grids are taken back."""
        path = self.out_dir / RESUME
        if path.is_file():
            try:
                training.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
                logger.info("training goes on at %d images", training.num_images)
            except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
                logger.warning("%s cannot be read; training begins anew", RESUME)
                training.num_images = 0
        kept = [line for line in _lines(self.stats) if json.loads(line)["num_images"] <= training.num_images]
        self.stats.write_text("".join(kept), encoding="utf-8")
        for grid in self.grids.glob("*.png"):
            if int(grid.stem) > training.num_images:
                grid.unlink()
        self.progress = Progress(self.progress.what, self.progress.total, self.progress.unit, done=training.num_images)

    def _write_stats(self, training: Training) -> None:
        row = {"num_images": training.num_images, "images_per_s": round(self.progress.rate, 1)} | last_losses(training)
        with self.stats.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def _draw(self, training: Training) -> None:
        images = fixed_sample(training.ema.net, len(self.config.classes), self.config.seed, self.config.device)
        save_grid(self.grids / f"{training.num_images:09d}.png", images, _GRID_COLUMNS)


def last_losses(training: Training) -> dict[str, float]:
    """The last step's losses and mean logits, as numbers."""
    return {
        name if "logits" in name else f"{name}_loss": round(float(value), 5) for name, value in training.losses.items()
    }


def fixed_sample(generator: Any, num_classes: int, seed: int, device: str) -> np.ndarray:
    """The same z for every grid: `_GRID_COLUMNS` images a class, a row a class, not picked."""
    random = torch.Generator().manual_seed(derive_seed(seed, "grid"))
    z = torch.randn(num_classes * _GRID_COLUMNS, generator.latent_dim, generator=random).to(device)
    label = torch.arange(num_classes, device=device).repeat_interleave(_GRID_COLUMNS)
    return sample(generator, label, z).numpy()


def save_resume(path: Path, training: Training) -> None:
    with atomic_path(path) as temporary:
        torch.save(training.state_dict(), temporary)


def _finish(config: FitConfig, dataset: DataSet, training: Training, out_dir: Path) -> None:
    generator = training.ema.net
    refresh_batch_norm(generator, config.gan.latent_dim, len(config.classes), derive_seed(config.seed, "norms"))
    frames = sorted((out_dir / "grids").glob("*.png"))
    save_film_strip(out_dir / "film_strip.png", frames, [int(frame.stem) for frame in frames])
    description = {
        "gan": config.gan.model_dump(mode="json"),
        "classes": list(config.classes),
        "spatial_size": list(dataset.images.shape[2:]),
        "channels": dataset.images.shape[1],
        "scaling": dataset.scaling.as_json(),
        "fold": config.fold,
        "gan_seed": config.gan_seed,
    }
    save_nets(out_dir, {"generator": generator, "discriminator": training.table.nets["discriminator"]}, description)
    (out_dir / RESUME).unlink(missing_ok=True)


def _crossed(num_images: int, batch: int, every: int) -> bool:
    return num_images // every > (num_images - batch) // every


def _lines(path: Path) -> list[str]:
    """Whole lines of a log: a killed process may have left half a line."""
    return (
        [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        if path.is_file()
        else []
    )
