"""An experiment as a list of steps, in an order in which each one finds its inputs finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.adversarial.fit import fit_config
from pipeline.adversarial.fit import run as run_fit
from pipeline.anomaly.score import anomaly_config
from pipeline.anomaly.score import run as run_anomaly
from pipeline.config.arms import uses_synthetic
from pipeline.config.experiment import Experiment
from pipeline.config.families import family_module
from pipeline.config.section import Section
from pipeline.core.cache import Stage, StageFunction
from pipeline.core.compute import resolve_hardware
from pipeline.core.layout import stage_name
from pipeline.data.cohort.split import run as run_split
from pipeline.data.cohort.split import split_config
from pipeline.data.ingest import ingest_config, source_digest
from pipeline.data.ingest import run as run_ingest
from pipeline.data.prepare import prepare_config
from pipeline.data.prepare import run as run_prepare
from pipeline.downstream.train import downstream_config
from pipeline.downstream.train import run as run_downstream
from pipeline.privacy.memorisation import memorisation_config
from pipeline.privacy.memorisation import run as run_memorisation
from pipeline.quality.measure import run as run_quality
from pipeline.quality.settings import quality_config
from pipeline.synthesis.synthesise import run as run_synthesise
from pipeline.synthesis.synthesise import synthesise_config
from pipeline.verdict.stage import run as run_verdict
from pipeline.verdict.stage import verdict_config

MANIFEST_STEPS = ("ingest", "split")
"""What `validate` runs: nothing is trained."""
JUDGED = ("downstream", "quality", "anomaly", "privacy")
"""What the verdict reads."""
RESUMABLE = ("fit-gan", "downstream")


@dataclass(frozen=True)
class Step:
    """A stage before its inputs exist.

    Attributes:
        kind, fold, gan_seed, loads: as of `Stage`.
        needs: name of an input, as the stage function knows it -> name of the step that makes it.
        sources: digests of what the stage reads outside the cache; called when the step's turn has come.
    """

    kind: str
    run: StageFunction
    config: Section
    needs: Mapping[str, str] = field(default_factory=dict)
    sources: Callable[[], Mapping[str, str]] = dict
    fold: int | None = None
    gan_seed: int | None = None
    loads: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    resumable: bool = False

    @property
    def name(self) -> str:
        return stage_name(self.kind, self.fold, self.gan_seed)

    def stage(self, directories: Mapping[str, Path]) -> Stage:
        """The stage, given the directory of every step that it needs."""
        return Stage(
            kind=self.kind,
            run=self.run,
            config=self.config,
            inputs={name: directories[step] for name, step in self.needs.items()},
            external=self.sources(),
            fold=self.fold,
            gan_seed=self.gan_seed,
            loads=self.loads,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            resumable=self.resumable,
        )


def plan_experiment(experiment: Experiment) -> tuple[Step, ...]:
    """All steps of `experiment`.

    Raises:
        ConfigError: it asks for a device that this machine does not have.
    """
    steps = _data_steps(experiment)
    for fold in range(experiment.data.split.num_folds):
        steps += _fold_steps(experiment, fold)
    judged = [step.name for step in steps if step.kind in JUDGED]
    needs = {name: name for name in ("split", "prepare", *judged)}
    config = verdict_config(experiment)
    return (*steps, Step("verdict", run_verdict, config, needs, seed=experiment.seed))


def _data_steps(experiment: Experiment) -> list[Step]:
    seed = experiment.seed
    ingest = ingest_config(experiment)
    manifests = {"ingest": "ingest", "split": "split"}
    return [
        Step("ingest", run_ingest, ingest, sources=lambda: {"source": source_digest(ingest)}, seed=seed),
        Step("split", run_split, split_config(experiment), {"ingest": "ingest"}, seed=seed),
        Step("prepare", run_prepare, prepare_config(experiment), manifests, seed=seed),
    ]


def _fold_steps(experiment: Experiment, fold: int) -> list[Step]:
    config = downstream_config(experiment, fold, None)
    steps = [_computing(experiment, "downstream", run_downstream, config, {}, fold)]
    for gan_seed in range(experiment.gan.gan_seeds):
        steps += _gan_steps(experiment, fold, gan_seed)
    return steps


def _gan_steps(experiment: Experiment, fold: int, gan_seed: int) -> list[Step]:
    fit, synthetic = ({kind: stage_name(kind, fold, gan_seed)} for kind in ("fit-gan", "synthesise"))

    def step(kind: str, run: StageFunction, config: Section, needs: Mapping[str, str]) -> Step:
        return _computing(experiment, kind, run, config, needs, fold, gan_seed)

    steps = [
        step("fit-gan", run_fit, fit_config(experiment, fold, gan_seed), {}),
        step("synthesise", run_synthesise, synthesise_config(experiment, fold, gan_seed), fit),
        step("quality", run_quality, quality_config(experiment, fold, gan_seed), synthetic),
        step("anomaly", run_anomaly, anomaly_config(experiment, fold, gan_seed), fit),
        step("privacy", run_memorisation, memorisation_config(experiment, fold, gan_seed), synthetic),
    ]
    if any(uses_synthetic(arm) for arm in experiment.arms):
        config = downstream_config(experiment, fold, gan_seed)
        steps.append(step("downstream", run_downstream, config, synthetic | fit))
    return steps


def _computing(
    experiment: Experiment,
    kind: str,
    run: StageFunction,
    config: Section,
    needs: Mapping[str, str],
    fold: int,
    gan_seed: int | None = None,
) -> Step:
    """A step that computes on the run's device, from the split and the prepared images at least."""
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    return Step(
        kind,
        run,
        config,
        {"split": "split", "prepare": "prepare", **needs},
        fold=fold,
        gan_seed=gan_seed,
        loads=() if gan_seed is None else (family_module(experiment.gan.family).__name__,),
        seed=experiment.seed,
        device=hardware.device,
        precision=hardware.precision,
        resumable=kind in RESUMABLE,
    )
