"""The detectors that a run left: found by name, and only ever with the GAN and the features they were fitted with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.anomaly.detect import DetectConfig, scores_of
from pipeline.anomaly.detector import Detector, ImageSet
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.files import DESCRIPTION, load_detector, read_detector
from pipeline.anomaly.overlays import MapScale
from pipeline.config.anomaly import ensemble_arm, named
from pipeline.config.by_name import or_nearest
from pipeline.config.experiment import Experiment
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.errors import DataError, UserError
from pipeline.core.files import dangling_link, digest_file
from pipeline.core.layout import RECORD, STAGES
from pipeline.core.records import Record, load_record
from pipeline.data.batches.scaling import Scaling
from pipeline.measures.ranks import mean_rank, share_below

_AGAIN = "Do `radaug run` again: finished stages are kept."


Calibration = tuple[np.ndarray, np.ndarray]
"""Scores [m] of the validation normals' images, and the patient of each."""


@dataclass(frozen=True)
class Fitted:
    """A detector of a run, ready to score, and what was written beside it (calibration, scaling, maps)."""

    name: str
    detector: Detector
    description: dict[str, Any]

    @property
    def map_scale(self) -> MapScale | None:
        """Of its maps; None where it has none."""
        found = self.description.get("map_scale")
        return None if found is None else MapScale(**found)

    @property
    def scaling(self) -> Scaling:
        return Scaling.from_json(self.description["scaling"])

    @property
    def calibration(self) -> Calibration:
        found = self.description["calibration"]
        return np.array(found["score"], dtype=float), np.array(found["patient"], dtype=str)

    def scores(self, images: ImageSet) -> np.ndarray:
        """Of new images, [N]."""
        return scores_of(self.detector, images, f"{self.name} on new images")


@dataclass(frozen=True)
class FittedEnsemble:
    """Several detectors of a run as one: the mean of their ranks among the run's validation normals.

    It is the first fit of the verdict's ensemble, image by image: where every patient has one image the numbers are the
    same. There, patients are ranked by the means over their images.

    Raises:
        DataError: the members were not calibrated on the same images.
    """

    name: str
    members: tuple[Fitted, ...]
    map_scale: None = None

    def __post_init__(self) -> None:
        patients = [member.calibration[1].tolist() for member in self.members]
        if any(one != patients[0] for one in patients):
            raise DataError(f"{self.name}: its members have seen different validation normals. {_AGAIN}")

    @property
    def scaling(self) -> Scaling:
        return self.members[0].scaling

    @property
    def calibration(self) -> Calibration:
        own = [member.calibration for member in self.members]
        return mean_rank([share_below(scores, scores, patients) for scores, patients in own]), own[0][1]

    def scores(self, images: ImageSet) -> np.ndarray:
        """Of new images, [N]."""
        return mean_rank([share_below(member.scores(images), *member.calibration) for member in self.members])


def fitted_as_named(run_dir: Path, experiment: Experiment, name: str = "") -> Fitted | FittedEnsemble:
    """The detector or else the ensemble called `name`; see `fitted_detector`.

    Raises:
        UserError: the run has neither, or has not a member.
        DataError: what a member looks through is not what it was fitted with.
    """
    asked = experiment.anomaly
    if name in asked.ensembles and name not in asked.detectors:
        members = tuple(fitted_detector(run_dir, experiment, member) for member in asked.ensembles[name])
        return FittedEnsemble(ensemble_arm(name), members)
    return fitted_detector(run_dir, experiment, name)


def fitted_detector(run_dir: Path, experiment: Experiment, name: str = "") -> Fitted:
    """The detector called `name`, of the fold and GAN that `release:` names.

    Args:
        name: as the configuration names it; empty = the first.

    Raises:
        UserError: the run has no such detector, or what it looks through is not what it was fitted with.
    """
    name = name or next(iter(experiment.anomaly.detectors), "")
    stages = stages_of(run_dir)
    own = [(record, place) for record, place in stages if record.kind == "detect" and _released(record, experiment)]
    record, place = next(((one, at) for one, at in own if one.variant == name), (None, None))
    if record is None or place is None:
        there = [*(one.variant for one, _ in own), *experiment.anomaly.ensembles]
        raise UserError(
            f"--detector {name or '(the first)'}: the run {run_dir.name} has not this one. It has: "
            f"{', '.join(there) or 'none'}{or_nearest(name, there)}."
        )
    if not (place / DESCRIPTION).is_file():
        raise UserError(" ".join([f"--detector {name}: was not fitted.", *record.notes]))
    gan = _gan(stages, record, experiment) if DETECTORS[named(name).name].needs_gan else None
    device = resolve_hardware(experiment.compute.device, experiment.compute.precision).device
    config = DetectConfig.model_validate(record.config)
    detector = load_detector(place, Hardware(device, record.precision), gan, _features(config))
    return Fitted(name, detector, read_detector(place))


def stages_of(run_dir: Path) -> list[tuple[Record, Path]]:
    """The records of the run's stages, and their directories, in the order of names.

    Raises:
        UserError: a link leads to nothing.
    """
    folder = run_dir / STAGES
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in places:
        if dangling_link(place) is not None:
            raise UserError(
                f"{STAGES}/{place.name}: is a link that leads to nothing: the run was copied or moved without the "
                f"cache that it points into. Copy it with its content (`cp -rL`). {_AGAIN}"
            )
    return [(load_record(place), place) for place in places if (place / RECORD).is_file()]


def only_stage(run_dir: Path, kind: str) -> tuple[Record, Path]:
    """The stage that every run has one of.

    Raises:
        UserError: it is not there.
    """
    found = next(((record, place) for record, place in stages_of(run_dir) if record.kind == kind), None)
    if found is None:
        raise UserError(f"{run_dir.name}: holds no stage {kind}. {_AGAIN}")
    return found


def shift_stage(run_dir: Path, experiment: Experiment) -> Path:
    """Where the statistics of the validation normals lie, of the fold that `release:` names.

    Raises:
        UserError: they are not there.
    """
    for record, place in stages_of(run_dir):
        if record.kind == "shift" and _released(record, experiment):
            return place
    raise UserError(f"{run_dir.name}: holds no stage shift. {_AGAIN}")


def _released(record: Record, experiment: Experiment) -> bool:
    release = experiment.release
    return record.fold == release.fold and record.gan_seed in (None, release.gan_seed)


def _gan(stages: list[tuple[Record, Path]], detect: Record, experiment: Experiment) -> Path:
    """Directory of the GAN that the detector was fitted with, whole.

    Raises:
        DataError: it is not there, or its files are others.
    """
    kind = "fit-gan" if named(detect.variant).gan else "fit-normals"
    for record, place in stages:
        if record.kind == kind and _released(record, experiment):
            if record.digest != detect.inputs.get("gan"):
                raise DataError(f"{record.name}: is not the GAN that {detect.variant} was fitted with. {_AGAIN}")
            changed = [
                name
                for name, (_, digest) in record.outputs.items()
                if name.endswith((".safetensors", ".json"))
                and (not (place / name).is_file() or digest_file(place / name) != digest)
            ]
            if changed:
                raise DataError(f"{record.name}/{changed[0]}: is not what {detect.variant} was fitted with. {_AGAIN}")
            return place
    raise DataError(f"{kind}: the GAN that {detect.variant} looks through is not in the run. {_AGAIN}")


def _features(config: DetectConfig) -> Path | None:
    """The user's network for feature maps, if the detector was fitted with one.

    Raises:
        DataError: the file is not there, or is another.
    """
    if not config.features:
        return None
    path = Path(config.features)
    if not path.is_file() or digest_file(path) != config.features_digest:
        raise DataError(f"anomaly.features: {path} is not the file that the detector was fitted with. Bring it back.")
    return path
