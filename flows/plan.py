"""An experiment as a graph of steps: each one's name, what it needs, and how its stage is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flows import stages
from flows.stages import AnyStage, MakeStage
from pipeline.config.anomaly import RUN_GAN, detector_module, named
from pipeline.config.arms import classifier_fits, part_name, uses_synthetic
from pipeline.config.experiment import Experiment
from pipeline.config.privacy import SHADOWED
from pipeline.core.layout import stage_name

MANIFEST_STEPS = ("ingest", "split")
"""What `validate` runs: nothing is trained."""
JUDGED = ("downstream", "quality", "detect", "shift", "privacy", "attack")
"""What the verdict reads."""
TRAINS_GAN = ("fit-gan", "fit-normals", "fit-shadow")


@dataclass(frozen=True)
class Step:
    """A stage before its inputs exist. It can be sent to another process or machine.

    Attributes:
        make: gives the stage without its inputs; called where the step runs, so that it resolves the hardware there.
        needs: name of an input, as the stage function knows it -> name of the step that makes it.
        sources: digests of what the stage reads outside the cache; called when the step's turn has come.
        parts: of the stage that can be made side by side before the stage itself.
        variant: which of several steps of its kind, such as a detector's name.
    """

    kind: str
    make: Callable[[], AnyStage]
    needs: Mapping[str, str] = field(default_factory=dict)
    sources: Callable[[], Mapping[str, str]] = dict
    fold: int | None = None
    gan_seed: int | None = None
    parts: tuple[str, ...] = ()
    variant: str = ""

    @property
    def name(self) -> str:
        return stage_name(self.kind, self.fold, self.gan_seed, self.variant)

    @property
    def config(self) -> Any:
        """The stage's section of the configuration."""
        return self.make().config

    def stage(self, directories: Mapping[str, Path]) -> AnyStage:
        """The stage, given the directory of every step that it needs."""
        inputs = {name: directories[step] for name, step in self.needs.items()}
        return replace(self.make(), inputs=inputs, external=self.sources(), fold=self.fold, gan_seed=self.gan_seed)


def plan_experiment(experiment: Experiment) -> tuple[Step, ...]:
    """All steps of `experiment`, each after those that it needs."""
    plan = _Plan(experiment)
    plan.add("ingest", stages.ingest, {}, sources=partial(stages.ingest_sources, experiment))
    plan.add("split", stages.split, {"ingest": "ingest"}, sources=partial(stages.split_sources, experiment))
    plan.add("prepare", stages.prepare, {"ingest": "ingest", "split": "split"})
    for fold in range(experiment.data.split.num_folds):
        plan.add_classifiers({}, fold)
        for gan_seed in range(experiment.gan.gan_seeds):
            _add_gan_steps(plan, fold, gan_seed)
        _add_detectors(plan, fold)
    _add_attacks(plan)
    judged = [step.name for step in plan.steps if step.kind in JUDGED]
    plan.add("verdict", stages.verdict, {name: name for name in ("split", "prepare", *judged)})
    return tuple(plan.steps)


def check_configs(steps: Iterable[Step]) -> None:
    """Make every stage's section once, so that what is wrong with the configuration is told before any work.

    Raises:
        ConfigError: it asks for a device that this machine does not have, or for what a family or an arm cannot do.
    """
    for step in steps:
        step.make()


@dataclass
class _Plan:
    experiment: Experiment
    steps: list[Step] = field(default_factory=list)

    def add(
        self,
        kind: str,
        make: MakeStage,
        needs: Mapping[str, str],
        fold: int | None = None,
        gan_seed: int | None = None,
        *,
        sources: Callable[[], Mapping[str, str]] = dict,
        parts: tuple[str, ...] = (),
        variant: str = "",
    ) -> None:
        made = partial(make, self.experiment, fold, gan_seed)
        self.steps.append(Step(kind, made, needs, sources, fold, gan_seed, parts, variant))

    def add_fold_step(
        self, kind: str, make: MakeStage, needs: Mapping[str, str], fold: int, gan_seed: int | None = None,
        *, parts: tuple[str, ...] = (), variant: str = "",
    ) -> None:  # fmt: skip
        """A step on the images of a fold."""
        needs = {"split": "split", "prepare": "prepare", **needs}
        self.add(kind, make, needs, fold, gan_seed, parts=parts, variant=variant)

    def add_classifiers(self, needs: Mapping[str, str], fold: int, gan_seed: int | None = None) -> None:
        """The classifiers of a fold: those without a generator, or those of one generator."""
        experiment = self.experiment
        fits = classifier_fits(experiment.arms, experiment.classifier.seeds, generator=gan_seed is not None)
        parts = tuple(part_name(*fit) for fit in fits)
        self.add_fold_step("downstream", stages.downstream, needs, fold, gan_seed, parts=parts)


def _add_gan_steps(plan: _Plan, fold: int, gan_seed: int) -> None:
    place = (fold, gan_seed)
    fit, synthetic = ({kind: stage_name(kind, *place)} for kind in ("fit-gan", "synthesise"))
    plan.add_fold_step("fit-gan", stages.fit_gan, {}, *place)
    plan.add_fold_step("synthesise", stages.synthesise, fit, *place)
    plan.add_fold_step("quality", stages.quality, synthetic, *place)
    plan.add_fold_step("privacy", stages.privacy, synthetic, *place)
    if any(uses_synthetic(arm) for arm in plan.experiment.arms):
        plan.add_classifiers(synthetic | fit, *place)


def _add_attacks(plan: _Plan) -> None:
    """On the one generator that may be released."""
    place = (plan.experiment.release.fold, plan.experiment.release.gan_seed)
    needs = {kind: stage_name(kind, *place) for kind in ("fit-gan", "synthesise")}
    shadows = _add_shadows(plan, place)
    for attack in plan.experiment.privacy.attacks:
        own = needs | (shadows if attack in SHADOWED else {})
        plan.add_fold_step("attack", partial(stages.attack, attack), own, *place, variant=attack)


def _add_shadows(plan: _Plan, place: tuple[int, int]) -> dict[str, str]:
    """Generators that are trained for an attack, and their images, by the names of the attack's inputs."""
    found: dict[str, str] = {}
    for number in range(plan.experiment.privacy.trained_shadows):
        variant = str(number)
        fit, images = (stage_name(kind, *place, variant) for kind in ("fit-shadow", "synthesise-shadow"))
        plan.add_fold_step("fit-shadow", partial(stages.fit_shadow, number), {}, *place, variant=variant)
        make = partial(stages.synthesise_shadow, number)
        plan.add_fold_step("synthesise-shadow", make, {"fit-gan": fit}, *place, variant=variant)
        found |= {f"shadow-gan-{number}": fit, f"shadow-{number}": images}
    return found


def _add_detectors(plan: _Plan, fold: int) -> None:
    """Those that look through the run's GANs once for each, all others once a fold, as is the look for a shift."""
    asked = plan.experiment.anomaly
    if asked.detectors:
        plan.add_fold_step("shift", stages.shift, {}, fold)
    if asked.needs_gan:
        plan.add_fold_step("fit-normals", stages.fit_normals, {}, fold)
    for detector in asked.detectors:
        make, (name, gan) = partial(stages.detect, detector), named(detector)
        if gan == RUN_GAN:
            for gan_seed in range(plan.experiment.gan.gan_seeds):
                needs = {"gan": stage_name("fit-gan", fold, gan_seed)}
                plan.add_fold_step("detect", make, needs, fold, gan_seed, variant=detector)
        else:
            needs = {"gan": stage_name("fit-normals", fold)} if detector_module(name).DETECTOR.needs_gan else {}
            plan.add_fold_step("detect", make, needs, fold, variant=detector)
