"""Where `gan.start_from` leads: the run whose generator a training begins with.

No stage imports this module: what reads configurations would be in the fingerprint of every GAN.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.adversarial.families import learns_from_pool
from pipeline.adversarial.starting import Start
from pipeline.adversarial.weights import read_description
from pipeline.config.gan import GanConfig
from pipeline.config.loading import load_experiment
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.layout import CHECKPOINTS, CONFIG, STAGES, gan_name


def start_of(gan: GanConfig) -> Start | None:
    """Where a training of `gan` begins; None = at random weights.

    Raises:
        ConfigError: `gan.start_from` is no finished run, its generator is of another family, or began with another's.
    """
    if gan.start_from is None:
        return None
    run_dir = Path(gan.start_from).resolve()
    try:
        other = load_experiment(run_dir / CONFIG)
        place = run_dir / CHECKPOINTS / gan_name(other.release.fold, other.release.gan_seed)
        described = read_description(place)
    except (OSError, ConfigError, DataError) as error:
        raise ConfigError(
            f"gan.start_from: {gan.start_from} holds no finished run's generator. Name the directory of a run, or of "
            "one that `radaug export` copied; a relative path starts where the command is given."
        ) from error
    if described["gan"]["family"] != gan.family:
        raise ConfigError(
            f"gan.start_from: the generator there is of the family {described['gan']['family']}, and gan.family is "
            f"{gan.family}. They must be the same."
        )
    if described.get("started_from"):
        raise ConfigError(
            "gan.start_from: the generator there began with another's weights, and whose images those saw is not known "
            "here. Name that first run."
        )
    return Start(
        place=str(place), split=str(run_dir / STAGES / "split"), fold=other.release.fold,
        pool=learns_from_pool(other.gan), weights=described["weights"],
    )  # fmt: skip
