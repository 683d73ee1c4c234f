"""The stages of an experiment, each made by a function that other processes and machines find by its name.

A stage's module is imported where the stage is made: what reads the plan alone needs none of the heavy libraries. The
device and the precision are resolved there too, since another machine may have others.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from pipeline.config.experiment import Experiment
from pipeline.config.families import family_module
from pipeline.core.cache import Config, Stage, StageFunction

RESUMABLE = ("fit-gan", "fit-normals", "fit-shadow", "downstream")
AnyStage: TypeAlias = Stage[Any]


class MakeStage(Protocol):
    """Makes a stage of an experiment, without its inputs; fold and GAN seed where it is made once for each."""

    def __call__(self, experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage: ...


def ingest(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.data.ingest import run, settled_config

    return Stage("ingest", run, settled_config(experiment), seed=experiment.seed)


def ingest_sources(experiment: Experiment) -> dict[str, str]:
    """Digests of the user's files that ingest reads."""
    from pipeline.data.ingest import ingest_config, source_digest

    return {"source": source_digest(ingest_config(experiment))}


def split(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.data.cohort.split import run, split_config

    return Stage("split", run, split_config(experiment), seed=experiment.seed)


def split_sources(experiment: Experiment) -> dict[str, str]:
    """The digest of the register that the split reads, where one is kept."""
    if experiment.data.patient_register is None:
        return {}
    from pipeline.data.cohort.register import read_register

    return {"register": read_register(Path(experiment.data.patient_register)).state}


def prepare(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.data.prepare import prepare_config, run

    return Stage("prepare", run, prepare_config(experiment), seed=experiment.seed)


def verdict(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.verdict.stage import run, verdict_config

    return Stage("verdict", run, verdict_config(experiment), seed=experiment.seed)


def fit_gan(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.adversarial.first_run import start_of
    from pipeline.adversarial.fit import fit_config, run

    assert fold is not None and gan_seed is not None
    config = fit_config(experiment, fold, gan_seed, start_of(experiment.gan))
    return _computing(experiment, "fit-gan", run, config, gan_seed)


def synthesise(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.synthesis.synthesise import run, synthesise_config

    assert fold is not None and gan_seed is not None
    return _computing(experiment, "synthesise", run, synthesise_config(experiment, fold, gan_seed), gan_seed)


def quality(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.quality.measure import run
    from pipeline.quality.settings import quality_config

    assert fold is not None and gan_seed is not None
    return _computing(experiment, "quality", run, quality_config(experiment, fold, gan_seed), gan_seed)


def fit_normals(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.adversarial.fit import run
    from pipeline.anomaly.normal_gan import fit_normals_config
    from pipeline.config.anomaly import normal_classes

    assert fold is not None
    data = experiment.data
    normal = normal_classes(experiment.anomaly, data.classes, data.positive)
    config = fit_normals_config(experiment, normal, fold)
    return _computing(experiment, "fit-normals", run, config, loads=(family_module(config.gan.family).__name__,))


def detect(detector: str, experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.anomaly.detect import detect_config, run
    from pipeline.config.anomaly import detector_module, named

    assert fold is not None
    config = detect_config(experiment, detector, fold, gan_seed)
    loads = (detector_module(named(detector).name).__name__, family_module(experiment.gan.family).__name__)
    return replace(_computing(experiment, "detect", run, config, loads=loads), variant=detector)


def shift(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.anomaly.shift_stage import run, shift_config

    assert fold is not None
    return Stage("shift", run, shift_config(experiment, fold), seed=experiment.seed)


def privacy(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.privacy.memorisation import memorisation_config, run

    assert fold is not None and gan_seed is not None
    return _computing(experiment, "privacy", run, memorisation_config(experiment, fold, gan_seed), gan_seed)


def fit_shadow(number: int, experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.adversarial.first_run import start_of
    from pipeline.adversarial.fit import run
    from pipeline.privacy.shadows import fit_shadow_config

    config = fit_shadow_config(experiment, number, start_of(experiment.gan))
    made = _computing(experiment, "fit-shadow", run, config, gan_seed)
    return replace(made, variant=str(number))


def synthesise_shadow(number: int, experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.privacy.shadows import synthesise_shadow_config
    from pipeline.synthesis.synthesise import run

    config = synthesise_shadow_config(experiment, number)
    return replace(_computing(experiment, "synthesise-shadow", run, config, gan_seed), variant=str(number))


def attack(name: str, experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.config.privacy import attack_module
    from pipeline.privacy.attack_stage import attack_config, run

    loads = (attack_module(name).__name__,)
    made = _computing(experiment, "attack", run, attack_config(experiment, name), gan_seed, loads=loads)
    return replace(made, variant=name)


def downstream(experiment: Experiment, fold: int | None, gan_seed: int | None) -> AnyStage:
    from pipeline.downstream.train import downstream_config, run, run_part

    assert fold is not None
    made = _computing(experiment, "downstream", run, downstream_config(experiment, fold, gan_seed), gan_seed)
    return replace(made, run_part=run_part)


def _computing(
    experiment: Experiment,
    kind: str,
    run: StageFunction[Config],
    config: Config,
    gan_seed: int | None = None,
    loads: tuple[str, ...] = (),
) -> Stage[Config]:
    """A stage that computes on the run's device."""
    from pipeline.core.compute import resolve_hardware

    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    own = () if gan_seed is None else (family_module(experiment.gan.family).__name__,)
    return Stage(
        kind,
        run,
        config,
        loads=(*own, *loads),
        seed=experiment.seed,
        device=hardware.device,
        precision=hardware.precision,
        resumable=kind in RESUMABLE,
    )
