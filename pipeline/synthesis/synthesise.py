"""Stage `synthesise`: a class-balanced data set directory from one trained generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from pipeline.config.section import Section
from pipeline.core.compute import resolve_hardware
from pipeline.core.errors import DataError
from pipeline.core.guard import CYCLE_COLUMN, SOURCE_COLUMN
from pipeline.core.layout import IMAGES, MANIFEST
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import new_array, write_table
from pipeline.data.batches.scaling import Scaling
from pipeline.synthesis.generate import TrainedGenerator
from pipeline.synthesis.sweep import write_sweeps

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

_FLAT = 1e-3


class SynthesiseConfig(Section):
    samples_per_class: int
    truncation_psi: float
    fold: int
    gan_seed: int
    seed: int
    device: str


def synthesise_config(experiment: Experiment, fold: int, gan_seed: int) -> SynthesiseConfig:
    return SynthesiseConfig(
        samples_per_class=experiment.synthesis.samples_per_class,
        truncation_psi=experiment.synthesis.truncation_psi,
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "synthesise", fold, gan_seed),
        device=resolve_hardware(experiment.compute.device).device,
    )


def run(config: SynthesiseConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write `samples_per_class` images a class, unpicked, in the form of a real data set without patients, and sweeps.

    A generator of cells of site and class shares them out among the sites, and the column `site` has the site. Where a
    training image was translated, the column `source_image` has its id.

    Raises:
        DataError: the generator gives the same flat image for everything, or values that are not numbers.
    """
    generator = TrainedGenerator(inputs["fit-gan"], dict(inputs), config.device)
    scaling = Scaling.from_json(generator.description["scaling"])
    images: np.memmap[Any, np.dtype[Any]] | None = None
    rows: list[dict[str, str]] = []
    asked = {name: {"label": name} for name in generator.classes}
    for name in set(asked) & set(generator.cells):
        site, label = generator.cells[name]
        asked[name] = {"label": label, "site": site}
    each = max(1, config.samples_per_class * len({one["label"] for one in asked.values()}) // len(asked))
    total = each * len(asked)
    for name, facts in asked.items():
        sources, first = generator.sources(name, each), len(rows)
        for number, (seed, image) in enumerate(generator.images(name, each, config.seed, config.truncation_psi)):
            if images is None:
                images = new_array(out_dir / IMAGES, scaling.dtype, (total, *image.shape))
            images[len(rows)] = scaling.to_stored(scaling.to_physical(image))
            known = "-".join(reversed(facts.values()))  # SITE-LABEL, or LABEL
            made = {SOURCE_COLUMN: sources[number]} if sources else {}
            rows.append({"image_id": f"synthetic-{known}-{number:05d}", **facts, **made, "sample_seed": str(seed)})
            if not np.isfinite(image).all():
                raise DataError("the generator makes values that are not numbers; train it again with lower rates.")
        if sources and images is not None:
            stored = torch.from_numpy(np.array(images[first : len(rows)]))
            errors = generator.cycle_errors(name, scaling.to_model(stored).numpy())
            for row, error in zip(rows[first:], errors, strict=True):
                row[CYCLE_COLUMN] = f"{error:.5f}"
    assert images is not None
    _refuse_flat(scaling, images)
    images.flush()
    write_sweeps(generator, scaling, config.seed, config.truncation_psi, out_dir)
    manifest = pd.DataFrame(rows).assign(
        patient_id="",
        fold=str(config.fold),
        gan_seed=str(config.gan_seed),
        truncation_psi=str(config.truncation_psi),
        weights_digest=generator.description["weights"]["generator"],
    )
    write_table(out_dir / MANIFEST, manifest)
    return Record(kind="synthesise", figures={"num_images": total}, extra={"scaling": scaling.as_json()})


def _refuse_flat(scaling: Scaling, images: np.ndarray) -> None:
    means, squares = zip(*((one.mean(), np.square(one).mean()) for one in map(np.float64, images)), strict=True)
    deviation = np.sqrt(max(np.mean(squares) - np.mean(means) ** 2, 0.0))
    spread = deviation * scaling.scale / (scaling.window[1] - scaling.window[0])
    if spread < _FLAT:
        raise DataError(
            "every synthetic image is the same flat grey: the GAN collapsed. Train longer or at lower rates."
        )
