"""Stage `downstream`: train the classifiers of one fold's arms and write what they say of held-out images."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.adversarial.cells import between_sites
from pipeline.adversarial.families import learns_from_pool
from pipeline.config.arms import (
    REFERENCE_ARM,
    classifier_fits,
    known_arm,
    part_name,
    representation_of,
    uses_synthetic,
)
from pipeline.config.experiment import ClassifierConfig, Experiment
from pipeline.config.section import Section
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.errors import ConfigError
from pipeline.core.files import digest_file, read_json, write_json
from pipeline.core.layout import PREDICTIONS
from pipeline.core.progress import Progress
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.core.usage import peak_mib, used_threads
from pipeline.data.batches.dataset import DataSet, read_table, write_table
from pipeline.downstream.attention import keep_maps, write_attention
from pipeline.downstream.feature_models import Predict, fit_feature_model
from pipeline.downstream.features import TrunkConfig, fit_on_features, trunk_config
from pipeline.downstream.fitted import Fitted, by_target_norms
from pipeline.downstream.linear_models import fit_on_representation
from pipeline.downstream.material import Material
from pipeline.downstream.regimens import regimen_of
from pipeline.downstream.representations import require_representations
from pipeline.downstream.shortcut import called_rare, shortcut_notes
from pipeline.supervised.fit import fit
from pipeline.supervised.memory import divided_batches, divided_note

_PARTS = "parts"
SYNTHETIC_SPLIT = "synthetic"


class DownstreamConfig(Section):
    """The arms of one fold: those with synthetic images of one generator, or (gan_seed null) those without.

    Attributes:
        trunk: where an arm works on features or on a fixed representation.
        needs_pool: an arm of the experiment, in this stage or in another, learns from unlabelled images.
        site: the manifest's column of the site, if there is one.
        archives: the unlabelled sites.
    """

    classifier: ClassifierConfig
    arms: tuple[str, ...]
    classes: tuple[str, ...]
    fold: int
    gan_seed: int | None
    seed: int
    device: str
    precision: str
    trunk: TrunkConfig | None = None
    needs_pool: bool = False
    site: str = ""
    archives: tuple[str, ...] = ()


def downstream_config(experiment: Experiment, fold: int, gan_seed: int | None) -> DownstreamConfig:
    """The stage's section of `experiment`.

    Raises:
        ConfigError: an arm wants a GAN that learns from unlabelled images, and `gan.family` does not; or a
            representation that it cannot give.
    """
    require_pool_family(experiment)
    require_representations(experiment)
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    arms = [arm for arm in experiment.arms if uses_synthetic(arm) == (gan_seed is not None)]
    if gan_seed is not None:
        arms.append(REFERENCE_ARM)  # fitted on real images only; here for the reverse check
    on_features = any(known_arm(arm).trunk or known_arm(arm).representation for arm in arms)
    return DownstreamConfig(
        classifier=experiment.classifier,
        arms=tuple(arms),
        classes=experiment.data.classes,
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "downstream", fold),
        device=hardware.device,
        precision=hardware.precision,
        trunk=trunk_config(experiment.gan, experiment.classifier.encoder_images) if on_features else None,
        needs_pool=any(known_arm(arm).pool for arm in experiment.arms),
        site=experiment.data.site_column,
        archives=experiment.data.unlabelled_sites,
    )


def require_pool_family(experiment: Experiment) -> None:
    """Refuse arms of a pool GAN where the family sees labelled images only.

    Raises:
        ConfigError: it does.
    """
    wanting = [arm for arm in experiment.arms if known_arm(arm).pool_gan]
    if wanting and (between_sites(experiment.gan) or not learns_from_pool(experiment.gan)):
        raise ConfigError(
            f"arms: {', '.join(wanting)} need a GAN that also learns from unlabelled images, and gan.family: "
            f"{experiment.gan.family} does not. Use ssgan or s3gan, or leave these arms out."
        )


def run(config: DownstreamConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Fit `classifier.seeds` classifiers an arm; write class probabilities on val, test and external images, and what
    networks look at in some test images.

    With synthetic images at hand, the reference arm's first classifier is fitted too and applied to them (the reverse
    check: what one that never saw a synthetic image says of them). Classifiers that a killed run or other processes
    made (see `run_part`) are taken as they are.

    Raises:
        DataError: an arm cannot be trained on these images, such as one of unlabelled images where there are none.
    """
    material = _material(config, inputs, out_dir)
    fits = _fits(config)
    waiting = [fit for fit in fits if not _is_kept(_kept(out_dir, *fit))]
    made_before = [_facts_of_fit(out_dir, *fit) for fit in fits if fit not in waiting]
    what = f"classifiers of fold {config.fold}" + ("" if config.gan_seed is None else f", GAN seed {config.gan_seed}")
    progress = Progress(what, len(fits), "fits", done=len(made_before))
    for done, (arm, seed) in enumerate(waiting, start=len(made_before) + 1):
        _make(arm, seed, config, material)
        progress.update(done)
    write_table(out_dir / PREDICTIONS, pd.concat([read_table(_kept(out_dir, *fit)) for fit in fits], ignore_index=True))
    made = {fit: _facts_of_fit(out_dir, *fit) for fit in fits}
    kept = [(arm, _maps(_kept(out_dir, arm, seed))) for arm, seed in fits]
    write_attention(out_dir, material, {arm: [path for own, path in kept if own == arm] for arm in config.arms})
    shutil.rmtree(out_dir / _PARTS)
    figures = {
        "classifiers": len(fits),
        "train_images": len(material.real.rows),
        "seconds_a_fit": round(float(np.mean([one["seconds"] for one in made.values()])), 2),
        "threads_a_fit": sorted({one["threads"] for one in made.values()}),
    }
    told = {f"{arm} seed {seed}": one["facts"] for (arm, seed), one in made.items() if one["facts"]}
    by_arm = {arm: [made[fit]["facts"] for fit in fits if fit[0] == arm] for arm in config.arms}
    notes = [shortcut_notes(arm, own) + divided_note(arm, own) for arm, own in by_arm.items()]
    return Record(
        kind="downstream",
        figures=figures | {"fits": told},
        notes=tuple(itertools.chain(*notes)),
        wall_s=sum(one["seconds"] for one in made_before),
        peak_mib=max((one["peak_mib"] for one in made_before), default=0.0),
    )


def run_part(config: DownstreamConfig, inputs: Mapping[str, Path], out_dir: Path, part: str) -> None:
    """Fit one classifier, named as in `part_name`, for a `run` that comes after; nothing where it lies finished.

    Raises:
        DataError: as of `run`.
    """
    arm, seed = next(fit for fit in _fits(config) if part_name(*fit) == part)
    if not _is_kept(_kept(out_dir, arm, seed)):
        _make(arm, seed, config, _material(config, inputs, out_dir))


def _fits(config: DownstreamConfig) -> tuple[tuple[str, int], ...]:
    return classifier_fits(config.arms, config.classifier.seeds, generator=config.gan_seed is not None)


def _material(config: DownstreamConfig, inputs: Mapping[str, Path], out_dir: Path) -> Material:
    parts = out_dir / _PARTS
    parts.mkdir(exist_ok=True)
    material = Material(
        config.classifier, config.classes, config.fold, inputs, parts, Hardware(config.device, config.precision),
        config.seed, config.site, config.archives,
    )  # fmt: skip
    if config.needs_pool:
        _ = material.pool_rows  # says now, before hours of training, that there are none
    return material


def _make(arm: str, seed: int, config: DownstreamConfig, material: Material) -> None:
    """Fit one classifier and keep what it says, with the facts that are written after it."""
    started, material = time.monotonic(), material.seen_as(known_arm(arm).look)
    with divided_batches() as divided:
        predict, facts = fit_arm(arm, config, material, _classifier_seed(config, arm, seed))
    if divided:
        facts["parts"] = max(divided)
    kept = material.parts / f"{arm}-{seed}.csv"
    write_table(kept, _applied(config, arm, seed, material, predict))
    if isinstance(predict, Fitted) and not _is_reverse_check(config, arm):
        keep_maps(_maps(kept), predict.net, material)
    write_json(
        _facts_beside(kept),
        {
            "facts": facts, "digest": digest_file(kept), "seconds": round(time.monotonic() - started, 2),
            "threads": used_threads(), "peak_mib": peak_mib(),
        },
    )  # fmt: skip


def _kept(out_dir: Path, arm: str, seed: int) -> Path:
    return out_dir / _PARTS / f"{arm}-{seed}.csv"


def _maps(predictions: Path) -> Path:
    return predictions.with_name(f"{predictions.name}.npy")


def _facts_of_fit(out_dir: Path, arm: str, seed: int) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(_facts_beside(_kept(out_dir, arm, seed)))
    return facts


def _is_kept(predictions: Path) -> bool:
    """Whether a classifier's predictions lie whole, with the facts that are written after them."""
    try:
        return bool(read_json(_facts_beside(predictions))["digest"] == digest_file(predictions))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _facts_beside(predictions: Path) -> Path:
    return predictions.with_name(f"{predictions.name}.json")


def _is_reverse_check(config: DownstreamConfig, arm: str) -> bool:
    return config.gan_seed is not None and not uses_synthetic(arm)


def _classifier_seed(config: DownstreamConfig, arm: str, seed: int) -> int:
    """Of an arm's own, but arms on one representation share theirs: it is learnt once, and they see the same copies."""
    name = representation_of(arm) or arm
    return derive_seed(config.seed, "classifier", name, str(config.gan_seed) if uses_synthetic(arm) else "", seed)


def _applied(config: DownstreamConfig, arm: str, seed: int, material: Material, predict: Predict) -> pd.DataFrame:
    """What a fitted classifier says of the images that it is to be judged by."""
    gan = str(config.gan_seed) if uses_synthetic(arm) else ""
    if _is_reverse_check(config, arm):
        targets = [(SYNTHETIC_SPLIT, material.generated, material.synthetic.rows)]
        gan = str(config.gan_seed)
    else:
        found = ((split, material.rows(split)) for split in ("val", "test", "external"))
        targets = [(split, material.dataset, rows) for split, rows in found if len(rows)]
        if known_arm(arm).sees_synthetic:
            targets.append((SYNTHETIC_SPLIT, material.generated, material.some_synthetic))
    key = {"arm": arm, "fold": str(config.fold), "seed": str(seed), "gan_seed": gan}
    tables = [
        predictions(key | {"split": split}, data, rows, predict(data, rows), config.classes)
        for split, data, rows in targets
    ]
    applied = pd.concat(tables, ignore_index=True)
    if not config.site:
        return applied
    known = material.held_cells if SYNTHETIC_SPLIT not in set(applied["split"]) else material.known_cells
    return applied.join(known, on="image_id").fillna("")


def fit_arm(arm: str, config: DownstreamConfig, material: Material, seed: int) -> tuple[Predict, dict[str, Any]]:
    """Train one classifier of `arm`: what predicts, and facts for the record."""
    if config.trunk is not None and known_arm(arm).trunk is not None:
        return fit_on_features(arm, config.trunk, material, seed)
    if config.trunk is not None and known_arm(arm).representation is not None:
        return fit_on_representation(arm, config.trunk, material, seed)
    regimen = regimen_of(arm, config.classifier, material)
    if config.classifier.on_features:
        predict = fit_feature_model(config.classifier, regimen.phases[0], config.classes, material.hardware, seed=seed)
        return predict, _facts_of(arm, predict, material)
    net = fit(config.classifier, regimen, config.classes, material.hardware, seed=seed)
    by_site = known_arm(arm).target_norms
    fitted = by_target_norms(net, material) if by_site else Fitted(net, material.hardware)
    return fitted, _facts_of(arm, fitted, material)


def _facts_of(arm: str, predict: Predict, material: Material) -> dict[str, Any]:
    """What is looked at beside an arm's predictions, by what it learns from."""
    found: dict[str, Any] = {}
    if known_arm(arm).sees("curated"):
        found["curation"] = material.curation_counts
    if known_arm(arm).sees("minority"):
        found["called_rare"] = called_rare(predict, material)
    return found


def predictions(
    key: Mapping[str, str], dataset: DataSet, rows: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Rows of `predictions.csv`: `key`, then image_id, patient_id, label and a score a class."""
    table = dataset.manifest.iloc[rows][["image_id", "patient_id", "label"]].reset_index(drop=True)
    for position, (name, value) in enumerate(key.items()):
        table.insert(position, name, value)
    for number, name in enumerate(classes):
        table[f"score_{name}"] = [f"{score:.6g}" for score in scores[:, number]]
    return table
