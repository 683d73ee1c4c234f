"""What the stage `quality` is told: its part of the experiment, resolved."""

from __future__ import annotations

from pipeline.config.experiment import ClassifierConfig, Experiment
from pipeline.config.loading import data_root
from pipeline.config.quality import EXTRACTORS, QualityConfig
from pipeline.config.section import Section
from pipeline.core.compute import resolve_hardware
from pipeline.core.errors import ConfigError
from pipeline.core.files import digest_file
from pipeline.core.seeds import derive_seed


class QualityStageConfig(Section):
    """`weights`: the user's extractor, a resolved path or empty; `weights_digest`: of that file; `site`: the manifest's
    column of the site, or empty."""

    quality: QualityConfig
    classifier: ClassifierConfig
    classes: tuple[str, ...]
    family: str
    weights: str
    weights_digest: str
    fold: int
    gan_seed: int
    alpha: float
    seed: int
    classifier_seed: int
    device: str
    precision: str
    site: str = ""


def quality_config(experiment: Experiment, fold: int, gan_seed: int) -> QualityStageConfig:
    """The quality section of `experiment`, its extractor's path resolved against `RADAUG_DATA`.

    Raises:
        ConfigError: the extractor's file is not there.
    """
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    extractor = experiment.quality.extractor
    weights = None if extractor in EXTRACTORS else (data_root() / extractor).resolve()
    if weights is not None and not weights.is_file():
        raise ConfigError(f"quality.extractor: {weights} is not there. Relative paths start in the data folder.")
    return QualityStageConfig(
        quality=experiment.quality,
        # how many downstream classifiers there are, and how long they train, does not change this one
        classifier=experiment.classifier.model_copy(
            update={"steps": experiment.quality.classifier_steps, "seeds": ClassifierConfig().seeds}
        ),
        classes=experiment.data.classes,
        family=experiment.gan.family,
        weights=str(weights or ""),
        weights_digest=digest_file(weights) if weights else "",
        fold=fold,
        gan_seed=gan_seed,
        alpha=experiment.verdict.alpha,
        seed=derive_seed(experiment.seed, "quality", fold, gan_seed),
        classifier_seed=derive_seed(experiment.seed, "quality", fold),
        device=hardware.device,
        precision=hardware.precision,
        site=experiment.data.site_column,
    )
