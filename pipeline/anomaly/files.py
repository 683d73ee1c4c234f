"""A fitted detector as files: its state in safetensors beside a JSON that says how to build it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from pipeline.anomaly.detector import Detector, Setting
from pipeline.anomaly.detectors import DETECTORS
from pipeline.config.anomaly import AnomalyConfig
from pipeline.core.compute import Hardware
from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path, digest_file, read_json, write_json
from pipeline.nets.sizes import ImageShape

STATE, DESCRIPTION = "detector.safetensors", "detector.json"


def save_detector(directory: Path, name: str, detector: Detector, further: dict[str, Any]) -> None:
    """Write STATE and DESCRIPTION into `directory`; `further` is what else a reader needs (calibration, scaling)."""
    setting, path = detector.setting, directory / STATE
    state = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    description = {
        "detector": name,
        "config": setting.config.model_dump(mode="json"),
        "spatial_size": list(setting.shape.spatial_size),
        "channels": setting.shape.channels,
        "num_classes": setting.shape.num_classes,
        "positive": list(setting.shape.positive),
        "normal": list(setting.normal),
        "seed": setting.seed,
        "weights": digest_file(path),
    }
    write_json(directory / DESCRIPTION, description | further)


def read_detector(directory: Path) -> dict[str, Any]:
    """What `save_detector` wrote of the detector in `directory`.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        description: dict[str, Any] = read_json(directory / DESCRIPTION)
        _ = description["detector"], description["weights"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{DESCRIPTION}: is missing or damaged; do `radaug run` again.") from error
    return description


def load_detector(directory: Path, hardware: Hardware, gan: Path | None, features: Path | None) -> Detector:
    """The detector in `directory`, ready to score.

    Args:
        gan: directory of the GAN that it looks through, if it needs one.
        features: the user's network for feature maps, if the detector was fitted with one.

    Raises:
        DataError: the description cannot be read, or the state is not the one that it was written with.
    """
    description = read_detector(directory)
    path = directory / STATE
    if not path.is_file() or digest_file(path) != description["weights"]:
        raise DataError(f"{STATE}: does not match {DESCRIPTION} beside it; do `radaug run` again.")
    shape = ImageShape(
        tuple(description["spatial_size"]),
        int(description["channels"]),
        int(description["num_classes"]),
        positive=tuple(description["positive"]),
    )
    config = AnomalyConfig.model_validate(description["config"])
    normal = tuple(description["normal"])
    setting = Setting(config, shape, normal, hardware, int(description["seed"]), gan, features)
    detector = DETECTORS[description["detector"]].make(setting)
    detector.restore(load_file(path))
    return detector.eval()
