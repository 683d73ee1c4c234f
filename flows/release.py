"""`radaug release RUN --out PACK`: the gate once more, each image once more, and only then a pack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from flows.audit import audit_run
from flows.withdrawn import note_pack
from pipeline.adversarial.families import FAMILIES, learns_from_pool
from pipeline.adversarial.weights import read_description
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import RefusedError, UserError
from pipeline.core.files import digest_file, digest_tree
from pipeline.core.layout import CONFIG, MANIFEST, RECORD, REJECTED, SPLITS_FILE, STAGES, TIMED_LOG, stage_name
from pipeline.core.patients import patient_units
from pipeline.core.records import Record, load_record, records_of
from pipeline.data.batches.dataset import DataSet, open_dataset, read_table
from pipeline.data.cohort.manifest import EXTERNAL
from pipeline.data.cohort.several import own_ids
from pipeline.data.synthetic_files import FileFormat, grid_spacing, refuse_format, shows_x_rays
from pipeline.measures.near_copies import NEAR, NearCopies
from pipeline.nets.extractors import EffNetLite0
from pipeline.privacy.attack import Images
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.copies import find_copies
from pipeline.release.features import Features
from pipeline.release.leaks import Secrets, secrets_of
from pipeline.release.material import WEIGHTS, Material, Wanted
from pipeline.release.pack import require_free, write_pack
from pipeline.release.verify import Verified
from pipeline.synthesis.sample import released_generator
from pipeline.verdict.release import RELEASE

_IN_FEATURES = "embedding"
"""The attack that looks for members in the features of the network that `_features` takes."""
_UNLISTED = frozenset((RECORD, TIMED_LOG))


def release_run(
    run_dir: Path,
    out: Path,
    *,
    num_images: int | None = None,
    formats: tuple[FileFormat, ...] = (),
    with_generator: bool = False,
    representation: bool = False,
) -> Verified:
    """Write the pack `out` of the generator that the run's `release:` names, if it may leave the building.

    Its images are the run's synthetic set of that generator, the one that was audited: of each class the first
    `num_images`, or all. With `representation` it holds their features by a frozen network, and images only in the
    `formats` that are named.

    Raises:
        RefusedError: the gate does not say `release`; the set is not the one that was audited; an image is a copy
            of a training image; something of the source would be in the pack; or the generator, or features, are asked
            for and nobody attacked them. Nothing is written then.
        UserError: the run lacks something, more images are asked for than were audited, or `out` is there already.
    """
    require_free(out)
    found = audit_run(run_dir)
    if found["decision"] != RELEASE:
        reasons = "\n".join(found["reasons"])
        raise RefusedError(f"no pack was written: the release verdict is {found['decision']}.\n{reasons}")
    experiment = load_experiment(run_dir / CONFIG)
    gan, inputs = released_generator(run_dir)
    inputs = inputs | {"synthesise": _audited_set(run_dir, experiment, gan)}
    synthetic = open_dataset(inputs["synthesise"])
    for one in formats:
        refuse_format(one, synthetic.images.ndim - 2, synthetic.scaling.unit)
    if with_generator:
        _require_attacked_generator(run_dir, experiment)
    if representation:
        _require_attacked_features(run_dir, experiment)
    rows = _chosen(synthetic, experiment.data.classes, num_images)
    pool = learns_from_pool(experiment.gan)
    copies = find_copies(
        Images(synthetic, rows), inputs, experiment.release.fold, pool=pool, seed=experiment.seed
    ).judged
    _refuse_copies(copies)
    material = _material(run_dir, experiment, gan, inputs, rows[~copies.near], copies, found)
    if representation:
        material = replace(material, features=_features(synthetic, material.rows))
    usual = () if representation else _usual(synthetic)
    wanted = Wanted(tuple(dict.fromkeys(formats)) or usual, with_generator)
    return write_pack(material, out, wanted, lambda made: note_pack(run_dir, made.digest))


def _usual(synthetic: DataSet) -> tuple[FileFormat, ...]:
    """PNG where it holds the values, which for HU and for volumes it does not."""
    flat = synthetic.images.ndim == 4 and synthetic.scaling.unit != "HU"
    return ("png",) if flat else ("nifti",)


def _audited_set(run_dir: Path, experiment: Experiment, gan: Path) -> Path:
    """The directory of the synthetic set that the attacks were made on.

    Raises:
        UserError: it is not there.
        RefusedError: it was changed since, or other weights made it.
    """
    named = experiment.release
    place = run_dir / STAGES / stage_name("synthesise", named.fold, named.gan_seed)
    if not (place / RECORD).is_file():
        raise UserError(f"{run_dir}: holds no {STAGES}/{place.name}. Do `radaug run` again.")
    record = load_record(place)
    audits = [one for one in _records(run_dir, "attack", "privacy") if _is_named(one, experiment)]
    audited = {one.inputs.get("synthesise") for one in audits}
    files = digest_tree(place, skip=_UNLISTED)
    changed = {name for name, found in files.items() if record.outputs.get(name) != found}
    if audited != {record.digest} or changed or set(record.outputs) - set(files) - _UNLISTED:
        raise RefusedError("no pack was written: the synthetic images are not those that were audited. Run again.")
    made_by = set(open_dataset(place).manifest["weights_digest"])
    if made_by != {digest_file(gan / WEIGHTS)}:
        raise RefusedError("no pack was written: other weights made the synthetic images. Run again.")
    return place


def _records(run_dir: Path, *kinds: str) -> list[Record]:
    places = [one for one in sorted((run_dir / STAGES).iterdir()) if (one / RECORD).is_file()]
    return [record for record, _ in records_of(places, *kinds)]


def _is_named(record: Record, experiment: Experiment) -> bool:
    return (record.fold, record.gan_seed) == (experiment.release.fold, experiment.release.gan_seed)


def _require_attacked_generator(run_dir: Path, experiment: Experiment) -> None:
    """Refuse to share weights that nobody attacked, or that are of no use without images of patients.

    Raises:
        RefusedError: no attack was made by one who holds the generator.
        UserError: the family asks for masks or images of patients.
    """
    if FAMILIES[experiment.gan.family].needs:
        raise UserError(
            f"--with-generator: {experiment.gan.family} makes images from patients' masks or images, which are never "
            "shared. Leave it out."
        )
    holding = [name for name, facts in ATTACKS.items() if facts.holds == "generator"]
    if not _attacks_made(run_dir, experiment) & set(holding):
        raise RefusedError(
            "no pack was written: the attacks were made on images, and none by one who holds the generator. Name "
            f"{' or '.join(holding)} in privacy.attacks and do `radaug run` again, or leave out --with-generator."
        )


def _require_attacked_features(run_dir: Path, experiment: Experiment) -> None:
    """Refuse to share features in which nobody looked for members.

    Raises:
        RefusedError: the attack in these features was not made.
    """
    if _IN_FEATURES not in _attacks_made(run_dir, experiment):
        raise RefusedError(
            f"no pack was written: no attack looked at the features that are to be shared. Name {_IN_FEATURES} in "
            "privacy.attacks and do `radaug run` again, or leave out --representation."
        )


def _attacks_made(run_dir: Path, experiment: Experiment) -> set[str]:
    """The attacks on the named generator that had a say in the gate's decision."""
    made = [one for one in _records(run_dir, "attack") if _is_named(one, experiment) and not one.extra["lacking"]]
    return {one.variant for one in made} & set(experiment.privacy.attacks)


def _features(synthetic: DataSet, rows: np.ndarray) -> Features:
    extractor = EffNetLite0()
    found = torch.cat([extractor.extract(block) for block in synthetic.blocks(rows)])
    return Features(found.numpy(), extractor.name(synthetic.images.ndim - 2))


def _chosen(synthetic: DataSet, classes: tuple[str, ...], num_images: int | None) -> np.ndarray:
    """Rows of the first `num_images` of each class.

    Raises:
        UserError: there are fewer.
    """
    labels = synthetic.manifest["label"].to_numpy()
    rows = [np.flatnonzero(labels == name) for name in classes]
    most = min(map(len, rows))
    if num_images is not None and not 1 <= num_images <= most:
        raise UserError(
            f"--num-images {num_images}: from 1 to {most} images of each class were made and audited. For more, set "
            "synthesis.samples_per_class and do `radaug run` again."
        )
    return np.concatenate([one[:num_images] for one in rows])


def _refuse_copies(found: NearCopies) -> None:
    number = int(found.copies.sum())
    if number:
        raise RefusedError(
            f"no pack was written: {number} of its {len(found.copies)} images are copies of a training image (within "
            f"{NEAR:g} of the distance that unseen real images keep, and nearer than half of what any image comes to "
            "an unseen patient). A generator that makes copies should not be shared at all."
        )
    if found.near.all():
        raise RefusedError("no pack was written: all of its images are near copies of training images.")


def _material(
    run_dir: Path, experiment: Experiment, gan: Path, inputs: Mapping[str, Path], rows: np.ndarray, copies: NearCopies,
    found: Any,
) -> Material:  # fmt: skip
    synthetic, prepared = open_dataset(inputs["synthesise"]), open_dataset(inputs["prepare"]).manifest
    known = "spacing" in prepared and "false" not in set(prepared.get("spacing_known", ()))
    dims = synthetic.images.ndim - 2
    return Material(
        synthetic=synthetic,
        rows=rows,
        gan=gan,
        description=read_description(gan),
        spacing=grid_spacing(inputs["prepare"], dims) if "spacing" in prepared else (1.0,) * dims,
        spacing_known=known,
        decision=found,
        near_copies={
            "left_out": int(copies.near.sum()), "images": len(copies.near), "near": NEAR, "control": copies.control,
        },
        cohort=_cohort(inputs["split"], experiment.release.fold, pool=learns_from_pool(experiment.gan)),
        secrets=_secrets(run_dir, experiment, inputs),
        limits=_limits(experiment),
        x_ray=shows_x_rays(inputs["prepare"]),
        uid_root=experiment.release.uid_root,
        xray_orientation=experiment.release.xray_orientation,
        license=experiment.release.license,
    )  # fmt: skip


def _limits(experiment: Experiment) -> tuple[str, ...]:
    """What the generator was lent by training patients, image by image."""
    lent = [*FAMILIES[experiment.gan.family].needs, *experiment.gan.attributes]
    return (f"Each image was asked for by what a training patient lent: {', '.join(lent)}.",) if lent else ()


def _cohort(split: Path, fold: int, *, pool: bool) -> dict[str, int]:
    """How many images and patients the generator learned from, and how many patients it never saw."""
    splits = read_table(split / SPLITS_FILE)
    manifest = read_table(split / MANIFEST).set_index("image_id", drop=False)
    own = splits[splits["fold"] == str(fold)].set_index("image_id")["split"]
    side = own[own.index.isin(manifest.index)]

    def part(*names: str) -> pd.DataFrame:
        return manifest.loc[side.index[side.isin(names)]]

    seen = part("train", "unlabelled") if pool else part("train")
    return {
        "train_images": len(seen),
        "train_patients": patient_units(seen).nunique(),
        "unseen_patients": patient_units(part("val", "test")).nunique(),
    }


def _secrets(run_dir: Path, experiment: Experiment, inputs: Mapping[str, Path]) -> Secrets:
    """What of the source the pack must not hold, from every manifest of the run."""
    ingest = run_dir / STAGES / "ingest"
    places = (run_dir / MANIFEST, inputs["split"] / MANIFEST, ingest / REJECTED, ingest / EXTERNAL)
    sources = {str(getattr(source, "path", "") or ""): "folder" for source in experiment.data.every_source.values()}
    words = sources | {str(run_dir.resolve()): "run directory", str(Path.cwd()): "working directory"}
    own = (*experiment.data.classes, *experiment.privacy.attacks)
    tables = [read_table(one) for one in places if one.is_file()]
    return secrets_of([*tables, *(table for one in tables if (table := own_ids(one)) is not None)], words, own)
