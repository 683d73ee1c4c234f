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

from pipeline.adversarial.adaptation import ADA, adaptive, augmenter_of
from pipeline.adversarial.crew import ALONE, Crew, launch, require_devices
from pipeline.adversarial.donors import Donors
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import Training, sample, train
from pipeline.adversarial.pictures import save_film_strip, save_grid
from pipeline.adversarial.recipe import ImageShape
from pipeline.adversarial.rollback import GOOD, Collapsed, Watch
from pipeline.adversarial.stepping import Ema, Stepper
from pipeline.adversarial.turns import Table
from pipeline.adversarial.watch import Probe, validation_images
from pipeline.adversarial.weights import refresh_batch_norm, save_nets
from pipeline.config.experiment import Experiment
from pipeline.config.families import GanSettings
from pipeline.config.gan import GanConfig
from pipeline.config.section import Section
from pipeline.core.cache import TIMED_LOG
from pipeline.core.compute import Hardware, autocast, place, resolve_hardware
from pipeline.core.errors import DataError, NonFiniteLoss
from pipeline.core.files import atomic_path
from pipeline.core.progress import Progress
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.dataset import DataSet
from pipeline.data.draws import Draws
from pipeline.data.split import open_fold, split_ids
from pipeline.data.streams import StoredImages, Stream, stored_images

logger = logging.getLogger(__name__)
RESUME = "resume.pt"
_GRID_COLUMNS = 12


class FitConfig(Section):
    """What the training of one generator depends on."""

    gan: GanSettings
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    fold: int
    gan_seed: int
    seed: int
    device: str
    precision: str
    deterministic: bool
    devices: int = 1


def fit_config(experiment: Experiment, fold: int, gan_seed: int) -> FitConfig:
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    require_devices(hardware.device, experiment.compute.devices)
    return FitConfig(
        # how many generators there are, and how many images are drawn from each, does not change this one
        gan=experiment.gan.model_copy(update={"gan_seeds": 1, "samples_per_class": 200, "truncation_psi": 1.0}),
        classes=experiment.data.classes,
        positive=experiment.data.positive,
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "gan", fold, gan_seed),
        device=hardware.device,
        precision=hardware.precision,
        deterministic=experiment.compute.deterministic,
        devices=experiment.compute.devices,
    )


def run(config: FitConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Train on the fold's `train` images; leaves weights, grids, the film strip and `stats.jsonl`.

    A directory with a resume file is continued: on the CPU with the same result, bit for bit.

    Raises:
        NonFiniteLoss: a loss became NaN or infinite.
    """
    return launch(config.device, config.devices, _fit, config, dict(inputs), out_dir)


def _fit(crew: Crew, config: FitConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """One process's part of `run`; the leading one writes, and its record counts."""
    dataset = open_fold(inputs["prepare"], inputs["split"], config.fold)
    train_rows = dataset.rows(split_ids(inputs["split"], config.fold, "train"))
    unlabelled = dataset.rows(split_ids(inputs["split"], config.fold, "unlabelled"))
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    training, donors = start(config, dataset, np.concatenate([train_rows, unlabelled]), crew)
    watch = Watch(
        config.gan.watch,
        probe_of(training, donors, config, dataset, inputs["split"]),
        out_dir,
        name=f"GAN of fold {config.fold}, seed {config.gan_seed}",
        total=config.gan.num_images,
        seed=config.seed,
        crew=crew,
    )
    load_resume(out_dir / RESUME, training, watch)
    log = Log(out_dir, config, donors, watch) if crew.leads else None
    _train(training, watch, log)
    if log is None:
        return Record(stage="fit-gan")
    figures = {
        "num_images": training.num_images,
        "train_images": len(train_rows),
        "augment_probability": _probability(training),
        "images_per_s": round(log.progress.rate, 1),
    }
    _finish(config, dataset, training, donors, out_dir)
    return Record(
        stage="fit-gan", figures=figures | last_losses(training) | {"watch": watch.figures()}, notes=watch.notes()
    )


def _probability(training: Training) -> float:
    """Of augmentation, as it is at the end."""
    augment = training.table.augment
    if augment.probability is not None:
        return round(float(augment.probability), 3)
    return float(augment.policy.acts)


def probe_of(training: Training, donors: Donors, config: FitConfig, dataset: DataSet, split: Path) -> Probe | None:
    """What the collapse watch looks at: training images and, for overfitting, the fold's `val` images, never `test`."""
    if not config.gan.watch.checks:
        return None
    train_rows, rows = (dataset.rows(split_ids(split, config.fold, part)) for part in ("train", "val"))
    held_out = validation_images(dataset, train_rows, rows, config.classes, config.gan.attributes, config.device)
    latent_dim = int(training.ema.nets["generator"].latent_dim)  # type: ignore[arg-type]
    return Probe(config.gan.watch.images, donors, held_out, len(config.classes), latent_dim, config.seed)


def _train(training: Training, watch: Watch, log: Log | None) -> None:
    """Train to the end, or to where the watch ends it; every process does the same, the leading one has the log."""

    def after_step(training: Training) -> None:
        watch(training)
        if log is not None:
            log(training)

    if log is not None:
        log.resume(training)
    goes_on = not watch.memory.ended
    while goes_on and training.num_images < training.total_images:
        try:
            train(training, training.total_images, after_step)
        except (NonFiniteLoss, Collapsed) as why:
            goes_on = watch.go_back(training, why)
            if log is not None:
                log.resume(training)
                if not goes_on:
                    log.draw(training)
                save_resume(log.out_dir / RESUME, training, watch)


def start(config: FitConfig, dataset: DataSet, rows: np.ndarray, crew: Crew = ALONE) -> tuple[Training, Donors]:
    """A training at its first step, all from `config.seed`, and what its images are asked for with.

    Args:
        rows: the fold's training images, and its unlabelled ones.
        crew: the processes that train together, as this one sees it.
    """
    hardware = Hardware(config.device, config.precision)
    images = stored_images(dataset, rows, config.classes, config.gan.attributes, hardware.device)
    family = FAMILIES[config.gan.family]
    if "mask" in family.needs and images.masks is None:
        raise DataError(
            f"gan.family: {family.name} makes images from masks, and this data set has none. Name their column in "
            "data.source.columns.mask, or choose another family."
        )
    shape = ImageShape(
        spatial_size=tuple(images.stored.shape[2:]),
        channels=images.stored.shape[1],
        num_classes=len(config.classes),
        num_attributes=len(config.gan.attributes),
        positive=tuple(config.classes.index(name) for name in config.positive),
    )
    donors = Donors(images.of_classes(range(shape.num_classes)), family.needs, shape.positive)
    return assemble(config.gan, images, shape, hardware, config.seed, crew), donors


def assemble(
    gan: GanConfig, images: StoredImages, shape: ImageShape, hardware: Hardware, seed: int, crew: Crew = ALONE
) -> Training:
    """A training at its first step on images that are on the device.

    Raises:
        ConfigError: adaptive augmentation was asked of a family without a discriminator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        nets, recipe = FAMILIES[gan.family].build(gan, shape)
    if gan.ada is not None:
        recipe = adaptive(recipe, gan.ada, gan.family, nets)
    placed = {name: place(net, hardware) for name, net in nets.items()}
    states = {name: state.to(hardware.device) for name, state in recipe.states.items()}
    ema = Ema({name: placed[name] for name in recipe.averaged}, gan.ema)
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "noise")), crew.rank, crew.world)
    shown = len(images.label) if "unlabelled" in recipe.streams else int((images.label >= 0).sum())
    augment = augmenter_of(gan, shown, states.get(ADA))
    for module in (module for net in placed.values() for module in net.modules()):
        for name, value in (("checkpointing", gan.checkpointing), ("draws", draws)):
            if hasattr(module, name):
                setattr(module, name, value)
    return Training(
        recipe=recipe,
        table=Table(placed, augment, draws, autocast(hardware), states),
        stepper=Stepper(placed, recipe, crew.share),
        ema=ema,
        streams={name: _stream(name, images, shape, gan, seed, crew) for name in recipe.streams},
        total_images=gan.num_images,
        accumulate=gan.accumulate,
    )


def _stream(name: str, images: StoredImages, shape: ImageShape, gan: GanConfig, seed: int, crew: Crew) -> Stream:
    classes = range(shape.num_classes)
    part = {
        "labelled": lambda: images.of_classes(classes),
        "unlabelled": images.unlabelled,
        "domain_a": lambda: images.of_classes([number for number in classes if number not in shape.positive]),
        "domain_b": lambda: images.of_classes(shape.positive),
    }[name]()
    order = derive_seed(seed, "order") if name == "labelled" else derive_seed(seed, "order", name)
    return Stream(part, gan.batch_size // gan.accumulate, order, crew.rank, crew.world)


class Log:
    """Watches a training: statistics, progress, sample grids, resume files."""

    def __init__(self, out_dir: Path, config: FitConfig, donors: Donors, watch: Watch) -> None:
        self.out_dir, self.config, self.donors, self.watch = out_dir, config, donors, watch
        self.stats = out_dir / TIMED_LOG
        self.grids = out_dir / "grids"
        total = config.gan.num_images
        self.progress = Progress(f"GAN of fold {config.fold}, seed {config.gan_seed}", total, "images")
        self._log_every = max(config.gan.batch_size, total // 200)
        self._grid_every = max(config.gan.batch_size, total // config.gan.snapshots)
        self._save_every = max(config.gan.batch_size, total // config.gan.checkpoints)

    def __call__(self, training: Training) -> None:
        batch = training.images_per_step
        self.progress.update(training.num_images)
        if _crossed(training.num_images, batch, self._log_every):
            self._write_stats(training)
        if _crossed(training.num_images, batch, self._grid_every):
            self.draw(training)
        if _crossed(training.num_images, batch, self._save_every):
            save_resume(self.out_dir / RESUME, training, self.watch)

    def resume(self, training: Training) -> None:
        """Take back the statistics and grids of images that `training` has not seen."""
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

    def draw(self, training: Training) -> None:
        """A grid of samples, for the film strip."""
        images = fixed_sample(training.ema.nets["generator"], self.donors, len(self.config.classes), self.config.seed)
        save_grid(self.grids / f"{training.num_images:09d}.png", images, _GRID_COLUMNS)


def last_losses(training: Training) -> dict[str, float]:
    """The last step's losses and mean logits, as numbers."""
    players = {player.name for player in training.recipe.players}
    return {
        f"{name}_loss" if name in players else name: round(float(value), 5) for name, value in training.figures.items()
    }


def fixed_sample(generator: Any, donors: Donors, num_classes: int, seed: int) -> np.ndarray:
    """The same z and donors for every grid: `_GRID_COLUMNS` images a class, a row a class, not picked."""
    random = torch.Generator().manual_seed(derive_seed(seed, "grid"))
    label = torch.arange(num_classes).repeat_interleave(_GRID_COLUMNS)
    z = torch.randn(len(label), generator.latent_dim, generator=random).to(donors.images.stored.device)
    return sample(generator, z, donors.condition(label, random)).numpy()


def load_resume(path: Path, training: Training, watch: Watch | None = None) -> None:
    """Continue from the resume file, if a whole one is there."""
    if not path.is_file():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        training.load_state_dict(state)
        if watch is not None:
            watch.load_state_dict(state["watch"])
        logger.info("training goes on at %d images", training.num_images)
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
        logger.warning("%s cannot be read; training begins anew", RESUME)
        training.num_images = 0


def save_resume(path: Path, training: Training, watch: Watch | None = None) -> None:
    remembered = {} if watch is None else {"watch": watch.state_dict()}
    with atomic_path(path) as temporary:
        torch.save(training.state_dict() | remembered, temporary)


def _finish(config: FitConfig, dataset: DataSet, training: Training, donors: Donors, out_dir: Path) -> None:
    averaged = training.ema.nets
    refresh_batch_norm(averaged["generator"], donors, len(config.classes), derive_seed(config.seed, "norms"))
    frames = sorted((out_dir / "grids").glob("*.png"))
    save_film_strip(out_dir / "film_strip.png", frames, [int(frame.stem) for frame in frames])
    description = {
        "gan": config.gan.model_dump(mode="json"),
        "classes": list(config.classes),
        "positive": list(config.positive),
        "spatial_size": list(dataset.images.shape[2:]),
        "channels": dataset.images.shape[1],
        "scaling": dataset.scaling.as_json(),
        "fold": config.fold,
        "gan_seed": config.gan_seed,
        "train_images": len(donors.images.label),
    }
    save_nets(out_dir, {**training.table.nets, **averaged}, description)
    for name in (RESUME, GOOD):
        (out_dir / name).unlink(missing_ok=True)


def _crossed(num_images: int, batch: int, every: int) -> bool:
    return num_images // every > (num_images - batch) // every


def _lines(path: Path) -> list[str]:
    """Whole lines of a log: a killed process may have left half a line."""
    return (
        [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        if path.is_file()
        else []
    )
