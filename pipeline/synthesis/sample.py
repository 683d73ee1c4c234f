"""`radaug sample`: images of a class from a finished run, as files that other programs read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.config.by_name import or_nearest
from pipeline.config.loading import load_experiment
from pipeline.core.errors import UserError
from pipeline.core.files import dangling_link, read_json, safe_name
from pipeline.core.layout import CHECKPOINTS, CONFIG, MODEL, RECORD, STAGES, gan_name
from pipeline.core.records import load_record
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.scaling import Scaling
from pipeline.data.synthetic_dicom import DicomOrigin
from pipeline.data.synthetic_files import FileFormat, grid_spacing, refuse_format, shows_x_rays, write_synthetic
from pipeline.synthesis.generate import TrainedGenerator


def sample_run(
    run_dir: Path, label: str, num: int, out_dir: Path, truncation_psi: float = 1.0, file_format: FileFormat = "nifti",
    *, mark: str = "", seed: int = 0,
) -> list[Path]:  # fmt: skip
    """Write `num` images of class `label` from the generator that the run's `release:` names, into `out_dir`.

    CT comes back in HU. The files say that they are synthetic; they are not cleared for sharing by being written.

    Args:
        mark: begins the names of the files, such as `not-released-`; the files say so in themselves too.
        seed: another one gives other images of the same generator.

    Returns:
        The files (for a 3D DICOM series: its folder), in order.

    Raises:
        UserError: the run has not this generator, the class is unknown, or the format does not hold such images.
    """
    checkpoint, inputs = released_generator(run_dir)
    generator = TrainedGenerator(checkpoint, inputs)
    dims = len(generator.description["spatial_size"])
    scaling = Scaling.from_json(generator.description["scaling"])
    refuse_format(file_format, dims, scaling.unit)
    release = load_experiment(run_dir / CONFIG).release
    spacing, x_ray = grid_spacing(inputs["prepare"], dims), shows_x_rays(inputs["prepare"])
    written = []
    for number, (sample_seed, image) in enumerate(drawn(checkpoint, generator, label, num, seed, truncation_psi)):
        name = f"{_beginning(label)}{number:05d}"
        origin = DicomOrigin(
            name, label, str(sample_seed), str(truncation_psi), generator.description["weights"]["generator"],
            generator.description["gan"]["family"], release.uid_root, mark.replace("-", " ").strip().upper(),
            release.xray_orientation, x_ray,
        )  # fmt: skip
        stem = out_dir / f"{mark}{name}"
        paths = write_synthetic(stem, image, scaling, spacing, file_format, origin)
        written.append(paths[0].parent if file_format == "dicom" and dims == 3 else paths[0])
    return written


def drawn(
    checkpoint: Path, generator: TrainedGenerator, label: str, num: int, seed: int = 0, truncation_psi: float = 1.0
) -> Iterator[tuple[int, np.ndarray]]:
    """`num` images [*spatial] of class `label` in physical values, such as HU, each with the seed of its latent.

    Args:
        checkpoint: the generator's directory, as `released_generator` gives it.

    Raises:
        UserError: the class is unknown, or a number out of its range.
    """
    if label not in generator.classes:
        near = or_nearest(label, generator.classes)
        raise UserError(f"--label {label}: the generator's classes are {generator.classes}{near}.")
    if num < 1 or not 0 < truncation_psi <= 1:
        raise UserError("--num must be at least 1, and --truncation-psi above 0 and at most 1.")
    scaling = Scaling.from_json(generator.description["scaling"])
    first = derive_seed(load_record(checkpoint).seed, "sample", *([seed] if seed else []))
    for sample_seed, image in generator.images(label, num, first, truncation_psi):
        yield sample_seed, scaling.to_physical(image)[0]


def refuse_wrong_labels(run_dir: Path, out_dir: Path, labels: Sequence[str]) -> None:
    """Refuse, before anything is written, labels that the generator does not know and images that would be overwritten.

    Raises:
        UserError: as above, or a label is named twice.
    """
    classes = read_json(released_generator(run_dir)[0] / MODEL)["classes"]
    for label in labels:
        if label not in classes:
            raise UserError(f"--label {label}: the generator's classes are {classes}{or_nearest(label, classes)}.")
        if labels.count(label) > 1:
            raise UserError(f"--label: {label} is named twice.")
        older = [path for path in out_dir.iterdir() if re.search(rf"{re.escape(_beginning(label))}\d{{5}}", path.name)]
        if older:
            raise UserError(
                f"{out_dir}: holds {len(older)} synthetic image(s) of {label} already, and they would be overwritten. "
                "Choose another --out, or remove them."
            )


def released_generator(run_dir: Path) -> tuple[Path, dict[str, Path]]:
    """Directory of the generator that the run's `release:` names, and of the `prepare` and `split` stages beside it.

    Raises:
        UserError: one of them is missing; the message says which, and whether a link leads to nothing.
    """
    release = load_experiment(_present(run_dir, CONFIG)).release
    name = f"{CHECKPOINTS}/{gan_name(release.fold, release.gan_seed)}"
    checkpoint = _present(run_dir, f"{name}/{MODEL}").parent
    inputs = {stage: _present(run_dir, f"{STAGES}/{stage}/{RECORD}").parent for stage in ("prepare", "split")}
    return checkpoint, inputs


def _beginning(label: str) -> str:
    """What the names of all images of a class begin with, after the mark of those that are not released."""
    return f"synthetic-{safe_name(label)}-"


def _present(run_dir: Path, name: str) -> Path:
    path = run_dir / name
    if path.is_file():
        return path
    broken = dangling_link(path)
    if broken is not None:
        raise UserError(
            f"{run_dir}: {broken.relative_to(run_dir)} is a link that leads to nothing: the run was copied or moved "
            "without the cache that it points into. Copy it with `radaug export`, bring the cache back to where "
            "it was, or do `radaug run` again."
        )
    raise UserError(
        f"{run_dir}: holds no {name}, which is needed for the generator that release.fold and release.gan_seed name. "
        "Let `radaug run` finish first."
    )
