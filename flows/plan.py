"""An experiment as a list of steps, in an order in which each one finds its inputs finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias

from pipeline.adversarial.fit import fit_config
from pipeline.adversarial.fit import run as run_fit
from pipeline.anomaly.score import anomaly_config
from pipeline.anomaly.score import run as run_anomaly
from pipeline.config.arms import uses_synthetic
from pipeline.config.experiment import Experiment
from pipeline.config.families import family_module
from pipeline.core.cache import Config, Stage, StageFunction
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
class Step(Generic[Config]):
    """A stage before its inputs exist.

    Attributes:
        kind, fold, gan_seed, loads: as of `Stage`.
        needs: name of an input, as the stage function knows it -> name of the step that makes it.
        sources: digests of what the stage reads outside the cache; called when the step's turn has come.
    """

    kind: str
    run: StageFunction[Config]
    config: Config
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

    def stage(self, directories: Mapping[str, Path]) -> Stage[Config]:
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


AnyStep: TypeAlias = Step[Any]
"""A step among steps of other kinds."""


def plan_experiment(experiment: Experiment) -> tuple[AnyStep, ...]:
    """All steps of `experiment`.

    Raises:
        ConfigError: it asks for a device that this machine does not have.
    """
    plan = _Plan(experiment)
    _add_data_steps(plan)
    for fold in range(experiment.data.split.num_folds):
        plan.add_computing("downstream", run_downstream, downstream_config(experiment, fold, None), {}, fold)
        for gan_seed in range(experiment.gan.gan_seeds):
            _add_gan_steps(plan, fold, gan_seed)
    judged = [step.name for step in plan.steps if step.kind in JUDGED]
    needs = {name: name for name in ("split", "prepare", *judged)}
    plan.add("verdict", run_verdict, verdict_config(experiment), needs)
    return tuple(plan.steps)


@dataclass
class _Plan:
    """Steps so far, added one by one: a list's type would hide a function that is given another's configuration."""

    experiment: Experiment
    steps: list[AnyStep] = field(default_factory=list)

    def add(
        self,
        kind: str,
        run: StageFunction[Config],
        config: Config,
        needs: Mapping[str, str],
        sources: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """A step that reads and writes tables and arrays."""
        step = Step(kind, run, config, needs, sources, seed=self.experiment.seed)
        self.steps.append(step)

    def add_computing(
        self,
        kind: str,
        run: StageFunction[Config],
        config: Config,
        needs: Mapping[str, str],
        fold: int,
        gan_seed: int | None = None,
    ) -> None:
        """A step that computes on the run's device, from the split and the prepared images at least."""
        hardware = resolve_hardware(self.experiment.compute.device, self.experiment.compute.precision)
        family = family_module(self.experiment.gan.family).__name__
        step = Step(
            kind,
            run,
            config,
            {"split": "split", "prepare": "prepare", **needs},
            fold=fold,
            gan_seed=gan_seed,
            loads=() if gan_seed is None else (family,),
            seed=self.experiment.seed,
            device=hardware.device,
            precision=hardware.precision,
            resumable=kind in RESUMABLE,
        )
        self.steps.append(step)


def _add_data_steps(plan: _Plan) -> None:
    ingest = ingest_config(plan.experiment)
    plan.add("ingest", run_ingest, ingest, {}, lambda: {"source": source_digest(ingest)})
    plan.add("split", run_split, split_config(plan.experiment), {"ingest": "ingest"})
    plan.add("prepare", run_prepare, prepare_config(plan.experiment), {"ingest": "ingest", "split": "split"})


def _add_gan_steps(plan: _Plan, fold: int, gan_seed: int) -> None:
    experiment, place = plan.experiment, (fold, gan_seed)
    fit, synthetic = ({kind: stage_name(kind, *place)} for kind in ("fit-gan", "synthesise"))
    plan.add_computing("fit-gan", run_fit, fit_config(experiment, *place), {}, *place)
    plan.add_computing("synthesise", run_synthesise, synthesise_config(experiment, *place), fit, *place)
    plan.add_computing("quality", run_quality, quality_config(experiment, *place), synthetic, *place)
    plan.add_computing("anomaly", run_anomaly, anomaly_config(experiment, *place), fit, *place)
    plan.add_computing("privacy", run_memorisation, memorisation_config(experiment, *place), synthetic, *place)
    if any(uses_synthetic(arm) for arm in experiment.arms):
        config = downstream_config(experiment, *place)
        plan.add_computing("downstream", run_downstream, config, synthetic | fit, *place)
