"""Stage `fit-gan`: train one conditional GAN on the training patients of one fold, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.cells import (
    blind,
    by_cell,
    by_site_alone,
    cells_of_generator,
    nets_classes,
    nets_positive,
    nets_shape,
    sources_within_class,
    with_cell_numbers,
)
from pipeline.adversarial.condition_sampler import ConditionSampler
from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.log import RESUME, Log, last_losses, load_resume, save_resume
from pipeline.adversarial.loop import GanTraining, train
from pipeline.adversarial.memory import within_memory
from pipeline.adversarial.pictures import save_film_strip
from pipeline.adversarial.private.certificate import private_notes, write_certificate
from pipeline.adversarial.private.check import require_private
from pipeline.adversarial.private.start import private_start
from pipeline.adversarial.process_group import ONE_PROCESS, ProcessGroup, launch, require_devices
from pipeline.adversarial.rollback import GOOD, Collapsed, Watch
from pipeline.adversarial.snapshots import Snapshots
from pipeline.adversarial.starting import Start, require_strangers, start_notes
from pipeline.adversarial.watch import Probe, validation_images, within_share
from pipeline.adversarial.weights import refresh_batch_norm, save_nets
from pipeline.config.families import GanSettings
from pipeline.config.gan import WatchConfig
from pipeline.config.section import Section
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.errors import ConfigError, DataError, Killed, NonFiniteLoss
from pipeline.core.layout import FILM_STRIP, GRIDS, SHADOW_MEMBERS
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.core.stopping import sigterm_waits
from pipeline.data.batches.dataset import DataSet, write_table
from pipeline.data.batches.streams import stored_images
from pipeline.data.cohort.folds import open_fold, split_ids
from pipeline.data.cohort.halves import Half, in_half
from pipeline.data.cohort.normals import normal_rows
from pipeline.nets.conditions import as_generator

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment


class FitConfig(Section):
    """What the training of one generator depends on.

    Attributes:
        normals_only: it sees nobody who has an image of another class than `classes`.
        start: whose weights it begins with.
        cells: where it is asked by site and class: the name of each cell -> its site and its class. `classes` are these
            names, or the sites alone of a translator that knows no classes.
        site: the manifest's column of the site, with `cells`.
        half: it is a shadow, and sees half of all the fold's patients, whatever their split: none of its images may be
            used for anything but the audit.
    """

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
    normals_only: bool = False
    half: Half | None = None
    start: Start | None = None
    cells: dict[str, tuple[str, str]] = Field(default_factory=dict)
    site: str = ""


def fit_config(experiment: Experiment, fold: int, gan_seed: int, start: Start | None = None) -> FitConfig:
    """The stage's section of `experiment`.

    Args:
        start: where `gan.start_from` leads (`first_run.start_of`), which no stage finds for itself.

    Raises:
        ConfigError: the family cannot be asked by attributes, and some are named; or a device is missing; or what was
            asked cannot be kept private.
    """
    if experiment.gan.attributes and "attributes" not in FAMILIES[experiment.gan.family].conditions:
        able = ", ".join(name for name, family in FAMILIES.items() if "attributes" in family.conditions)
        raise ConfigError(
            f"gan.attributes: images of gan.family: {experiment.gan.family} cannot be asked by attributes. "
            f"Leave them out, or use one of {able}."
        )
    require_private(experiment)
    exact = experiment.gan.dp is not None
    hardware = resolve_hardware(experiment.compute.device, "float32" if exact else experiment.compute.precision)
    require_devices(hardware.device, experiment.compute.devices)
    data, cells = experiment.data, cells_of_generator(experiment)
    return FitConfig(
        # how many generators there are does not change this one, nor where the weights lie that it begins with
        gan=experiment.gan.model_copy(update={"gan_seeds": 1, "start_from": None}),
        classes=nets_classes(experiment, cells),
        positive=nets_positive(experiment, cells),
        cells=cells,
        site=data.site_column if cells else "",
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "gan", fold, gan_seed),
        device=hardware.device,
        precision=hardware.precision,
        deterministic=experiment.compute.deterministic,
        devices=experiment.compute.devices,
        start=start,
    )


def run(config: FitConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Train on the fold's `train` images; leaves weights, grids, the film strip and `stats.jsonl`.

    A directory with a resume file is continued: on the CPU with the same result, bit for bit. Where memory runs out,
    batches are computed in more parts (`within_memory`).

    Raises:
        NonFiniteLoss: a loss became NaN or infinite.
        LeakageError: the generator that it begins with saw an image of the fold that it may not have seen.
    """

    def attempt(gan: GanSettings) -> Record:
        divided = config.model_copy(update={"gan": gan})
        return launch(config.device, config.devices, _fit, divided, dict(inputs), out_dir)

    return within_memory(config.gan, out_dir, _name(config), attempt, config.devices)


def _name(config: FitConfig) -> str:
    return f"GAN of fold {config.fold}, seed {config.gan_seed}"


def _fit(group: ProcessGroup, config: FitConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """One process's part of `run`; the leading one writes, and its record counts."""
    dataset = open_fold(inputs["prepare"], inputs["split"], config.fold)
    if config.cells:
        parts = ("train", "unlabelled") if blind(config.gan) else ("train",)
        learnt = [one for part in parts for one in split_ids(inputs["split"], config.fold, part)]
        asked = by_site_alone if blind(config.gan) else by_cell
        dataset = asked(dataset, config.site, learnt, config.classes, config.fold)
    train_rows, unlabelled = (_rows(config, dataset, inputs["split"], part) for part in ("train", "unlabelled"))
    if config.normals_only and len(train_rows) < config.gan.batch_size // 4:
        raise DataError(
            f"anomaly.detectors: fold {config.fold} has {len(train_rows)} training images of patients whose images are "
            f"all {' or '.join(config.classes)}: too few to train a GAN on. Leave out the detectors that look through "
            "a GAN of their own, or write NAME@run for the run's GAN."
        )
    if config.start is not None:
        require_strangers(config.start, inputs["split"], config.fold, private=config.gan.dp is not None)
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    training, sampler = start(config, dataset, np.concatenate([train_rows, unlabelled]), group)
    name = _name(config)
    watching = within_share(config.gan.watch, config.gan.num_images, len(config.classes))
    watch = Watch(
        watching,
        probe_of(training, sampler, config, dataset, inputs["split"], watching),
        out_dir,
        name=name,
        total=config.gan.num_images,
        seed=config.seed,
        group=group,
    )
    load_resume(out_dir / RESUME, training, watch)
    if not group.leads:
        _train(training, watch, None)
        return Record(kind="fit-gan")
    described = _description(config, dataset, len(sampler.images.label))
    left = Snapshots(out_dir, sampler, described, config.seed) if config.normals_only else None
    if config.half is not None:
        seen = np.concatenate([train_rows, unlabelled])
        write_table(out_dir / SHADOW_MEMBERS, dataset.manifest.iloc[seen][["image_id"]])
    log = Log(out_dir, config.gan, name, len(config.classes), config.seed, sampler, watch, left)
    _train(training, watch, log)
    figures = {
        "num_images": training.num_images,
        "train_images": len(train_rows),
        "augment_probability": _probability(training),
        "images_per_s": round(log.progress.rate, 1),
    }
    _finish(config, described, training, sampler, out_dir)
    return Record(
        kind="fit-gan",
        figures=figures | last_losses(training) | {"watch": watch.figures()},
        notes=(*watch.notes(), *private_notes(training, name), *start_notes(config.start, name)),
        wall_s=log.earlier_s,
    )


def _rows(config: FitConfig, dataset: DataSet, split: Path, part: str) -> np.ndarray:
    """Positions of the images of a part of the fold that this GAN may see."""
    if config.half is not None:
        return _rows_of_half(config.half, config.fold, dataset, split, part)
    rows = dataset.rows(split_ids(split, config.fold, part))
    return rows[normal_rows(dataset, config.classes)[rows]] if config.normals_only else rows


def _rows_of_half(half: Half, fold: int, dataset: DataSet, split: Path, part: str) -> np.ndarray:
    """The images of the half's patients: all that have a class, or the unlabelled ones."""
    parts = {name: split_ids(split, fold, name) for name in ("train", "val", "test", "unlabelled")}
    rows = dataset.rows([one for ids in parts.values() for one in ids])
    mine = rows[in_half(dataset.manifest.iloc[rows], half)]
    return mine[np.isin(mine, dataset.rows(parts["unlabelled"])) == (part == "unlabelled")]


def _probability(training: GanTraining) -> float:
    """Of augmentation, as it is at the end."""
    augment = training.context.augment
    if augment.probability is not None:
        return round(float(augment.probability), 3)
    return float(augment.policy.acts)


def probe_of(
    training: GanTraining,
    sampler: ConditionSampler,
    config: FitConfig,
    dataset: DataSet,
    split: Path,
    watching: WatchConfig,
) -> Probe | None:
    """What the collapse watch looks at: training images and, for overfitting, the fold's `val` images, never `test`."""
    if not watching.checks:
        return None
    train_rows, rows = (_rows(config, dataset, split, part) for part in ("train", "val"))
    held_out = validation_images(dataset, train_rows, rows, config.classes, config.gan.attributes, config.device)
    latent_dim = as_generator(training.ema.nets["generator"]).latent_dim
    part = config.gan.batch_size // config.gan.accumulate
    return Probe(watching.images, sampler, held_out, len(config.classes), latent_dim, config.seed, part)


def _train(training: GanTraining, watch: Watch, log: Log | None) -> None:
    """Train to the end, or to where the watch ends it; every process does the same, the leading one has the log.

    SIGTERM waits for the end of the step and for a resume file, where this process trains alone.

    Raises:
        Killed: SIGTERM came, and somebody's handler let this process live.
    """
    alone = watch.group.world_size == 1
    with sigterm_waits() if alone else nullcontext(lambda: False) as must_end:

        def after_step(training: GanTraining) -> None:
            watch(training)
            if log is not None:
                log(training)
                if must_end():
                    save_resume(log.out_dir / RESUME, training, watch)
                    raise Killed(f"{watch.name}: ended by SIGTERM. Run the same command again: it goes on from here.")

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


def start(
    config: FitConfig, dataset: DataSet, rows: np.ndarray, group: ProcessGroup = ONE_PROCESS
) -> tuple[GanTraining, ConditionSampler]:
    """A training at its first step, all from `config.seed`, and what its images are asked for with.

    Args:
        rows: the fold's training images, and its unlabelled ones.
        group: the processes that train together, as this one sees it.
    """
    hardware = Hardware(config.device, config.precision)
    images = stored_images(dataset, rows, config.classes, config.gan.attributes, hardware.device)
    family = FAMILIES[config.gan.family]
    if "mask" in family.needs and images.masks is None:
        raise DataError(
            f"gan.family: {family.name} makes images from masks, and this data set has none. Name their column in "
            "data.source.columns.mask, or choose another family."
        )
    spatial, channels = images.shape[1:], images.shape[0]
    shape = nets_shape(config.gan, spatial, channels, config.classes, config.positive, config.cells)
    if blind(config.gan):
        images = with_cell_numbers(images, dataset, rows, config.cells)
    sources = sources_within_class(config.gan, config.classes, config.cells)
    sampler = ConditionSampler(images.of_classes(range(shape.num_classes)), family.needs, shape.positive, sources)
    images, budget = private_start(config.gan, dataset, rows, images)
    return assemble(config.gan, images, shape, hardware, config.seed, group, budget, config.start), sampler


def _description(config: FitConfig, dataset: DataSet, train_images: int) -> dict[str, Any]:
    """What stands in MODEL beside the weights: all that is needed to build the nets again."""
    return {
        "gan": config.gan.model_dump(mode="json"),
        "classes": list(config.classes),
        "positive": list(config.positive),
        "cells": {name: list(pair) for name, pair in config.cells.items()},
        "site": config.site,
        "spatial_size": list(dataset.images.shape[2:]),
        "channels": dataset.images.shape[1],
        "scaling": dataset.scaling.as_json(),
        "fold": config.fold,
        "gan_seed": config.gan_seed,
        "train_images": train_images,
        "started_from": "" if config.start is None else config.start.weights["generator"],
    }


def _finish(
    config: FitConfig, description: dict[str, Any], training: GanTraining, sampler: ConditionSampler, out_dir: Path
) -> None:
    averaged = training.ema.nets
    refresh_batch_norm(averaged["generator"], sampler, len(config.classes), derive_seed(config.seed, "norms"))
    frames = sorted((out_dir / GRIDS).glob("*.png"))
    save_film_strip(out_dir / FILM_STRIP, frames, [int(frame.stem) for frame in frames], config.classes)
    save_nets(out_dir, {**training.context.nets, **averaged}, description)
    write_certificate(out_dir, training, config.gan, description["started_from"])
    for name in (RESUME, GOOD):
        (out_dir / name).unlink(missing_ok=True)
