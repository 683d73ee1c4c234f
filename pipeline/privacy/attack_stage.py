"""Stage `attack`: one attack on the generator that may be released, beside its control and a planted leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.adversarial.families import learns_from_pool
from pipeline.adversarial.weights import has_net, read_description
from pipeline.config.privacy import PrivacyConfig
from pipeline.config.section import Section
from pipeline.core.certificates import read_certificate
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.errors import RefusedError
from pipeline.core.layout import ATTACK_SCORES
from pipeline.core.metrics import MetricRow, as_text, write_metrics
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.dataset import open_dataset, write_table
from pipeline.measures.resampling import MIN_PATIENTS
from pipeline.privacy.attack import AttackFacts, Images, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.cohort import Cohort, cohort_of
from pipeline.privacy.guessing import guessed, values_of
from pipeline.privacy.outcome import Outcome, Rate, outcome_of, separation_of

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

STAGE = "attack"
_NOISE = 0.05
_ALPHA = 0.05
PER_PATIENT = "per patient"


class AttackConfig(Section):
    """What one attack depends on.

    Attributes:
        privacy: the section, without what concerns other attacks and the gate alone.
        pool: whether the generator learned from unlabelled images too.
    """

    attack: str
    privacy: PrivacyConfig
    fold: int
    gan_seed: int
    pool: bool
    seed: int
    device: str
    precision: str


def attack_config(experiment: Experiment, attack: str) -> AttackConfig:
    """The stage's section of `experiment`, for the generator that its `release:` names."""
    place = experiment.release
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    gate_only = {name: PrivacyConfig.model_fields[name].default for name in ("advantage", "alpha")}
    return AttackConfig(
        attack=attack,
        privacy=experiment.privacy.model_copy(update=gate_only | {"attacks": ()}),
        fold=place.fold,
        gan_seed=place.gan_seed,
        pool=learns_from_pool(experiment.gan),
        seed=derive_seed(experiment.seed, "attack", attack, place.fold, place.gan_seed),
        device=hardware.device,
        precision=hardware.precision,
    )


def run(config: AttackConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write attack.csv (one row a real image) and metrics.csv; the outcome is in the record, for the gate.

    Where the run lacks what an audit needs there are no scores, and the record says what.

    Raises:
        LeakageError: a patient, or an image pixel for pixel, is both a member and unseen.
        RefusedError: the synthetic images were not made with the generator's weights.
    """
    facts, asked = ATTACKS[config.attack], config.privacy
    weights = _weights(inputs)
    own = {"weights": weights, "certificate": read_certificate(inputs["fit-gan"], weights)}
    cohort = cohort_of(
        inputs, config.fold, pool=config.pool, most=asked.real_images, seed=derive_seed(config.seed, "cohort")
    )
    lacking = cohort.lacking(asked.fewest) or _no_net(facts, inputs["fit-gan"])
    if lacking:
        return _skipped(config, out_dir, own, lacking)
    score = facts.scores(_target(config, inputs, _synthetic(inputs["synthesise"], config)), cohort.candidates)
    if _fewest_tried(cohort, score) < MIN_PATIENTS:
        return _skipped(config, out_dir, own, f"The attack {config.attack} can try too few of the patients.")
    outcome = _judged(cohort, score, numpy_generator(config.seed, "outcome"))
    planted = _planted(config, inputs, cohort) if facts.holds == "images" else None
    _write_scores(out_dir, cohort, score)
    write_metrics(out_dir, [*metric_rows(config, facts, outcome, planted), *_guess_rows(config, inputs, cohort)])
    shown = outcome.rate("auroc", "patient")
    figures = {"auroc": shown.value, "control_auroc": shown.control, "standing_out": outcome.standing_out}
    found = {"outcome": outcome.as_json(), "planted": None if planted is None else asdict(planted)}
    return Record(
        kind=STAGE,
        figures={name: round(float(value or 0), 4) for name, value in figures.items()},
        extra=found | own | {"lacking": "", "gates": facts.gates},
    )


def _fewest_tried(cohort: Cohort, score: np.ndarray) -> int:
    """Patients whose images were tried, on the side that has fewer."""
    patient = cohort.candidates.patient
    return min(len(set(patient[np.isfinite(score) & side])) for side in (cohort.member, ~cohort.member))


def _guess_rows(config: AttackConfig, inputs: Mapping[str, Path], cohort: Cohort) -> list[MetricRow]:
    """How often values of patients are guessed right, of members and of unseen ones, beside the base rate."""
    guesses = ATTACKS[config.attack].guesses
    if guesses is None:
        return []
    target = _target(config, inputs, _synthetic(inputs["synthesise"], config))
    rows = []
    for column, right in guesses(target, cohort.candidates).items():
        truth = values_of(cohort.candidates, column)
        found = guessed(right, truth, cohort.member, cohort.candidates.patient)
        key = MetricRow(
            stage=STAGE, arm=config.attack, fold=str(config.fold), gan_seed=str(config.gan_seed), label=column,
            subgroup=PER_PATIENT, metric="guessed", value=as_text(found.members), n_patients=str(sum(found.patients)),
            detail="share of training patients whose value is guessed right" if not found.refused else found.refused,
        )  # fmt: skip
        rows += [
            key,
            replace(key, metric="guessed_control", value=as_text(found.unseen), detail="the same of unseen patients"),
            replace(key, metric="guessed_base", value=as_text(found.base), detail="share of the commonest value"),
            replace(
                key, metric="guessed_difference", value=as_text(found.difference), ci_low=as_text(found.low),
                ci_high=as_text(found.high), detail="training patients less unseen ones",
            ),
        ]  # fmt: skip
    return rows


def _skipped(config: AttackConfig, out_dir: Path, own: dict[str, Any], lacking: str) -> Record:
    write_metrics(out_dir, ())
    return Record(
        kind=STAGE,
        notes=(f"The attack {config.attack} was not made. {lacking}",),
        extra=own | {"lacking": lacking, "gates": ATTACKS[config.attack].gates},
    )


def _weights(inputs: Mapping[str, Path]) -> str:
    """Digest of the generator's weights, by which the synthetic images were made.

    Raises:
        RefusedError: they were made by other weights.
    """
    weights = str(read_description(inputs["fit-gan"])["weights"]["generator"])
    made_by = set(open_dataset(inputs["synthesise"]).manifest["weights_digest"])
    if made_by != {weights}:
        raise RefusedError("attack: the synthetic images were made by other weights than the generator's. Run again.")
    return weights


def _no_net(facts: AttackFacts, gan: Path) -> str:
    if facts.holds == "discriminator" and not has_net(gan, "discriminator"):
        return f"The family {read_description(gan)['gan']['family']} has no discriminator."
    return ""


def _synthetic(place: Path, config: AttackConfig) -> Images:
    dataset = open_dataset(place)
    chosen = numpy_generator(config.seed, "synthetic").permutation(len(dataset.images))
    return Images(dataset, np.sort(chosen[: config.privacy.synthetic_images]))


def _target(config: AttackConfig, inputs: Mapping[str, Path], synthetic: Images) -> Target:
    hardware = Hardware(config.device, config.precision)
    return Target(synthetic, config.privacy, hardware, derive_seed(config.seed, "scores"), inputs)


def _judged(cohort: Cohort, score: np.ndarray, random: np.random.Generator) -> Outcome:
    return outcome_of(score, cohort.member, cohort.candidates.label, cohort.candidates.patient, random)


def _planted(config: AttackConfig, inputs: Mapping[str, Path], cohort: Cohort) -> Rate:
    """What the attack sees of a leak that is there: every training image replayed, shifted by a voxel, with noise.

    An attack that does not see this one is blind on these images, and clears nobody.
    """
    seen, seed = cohort.candidates.images, derive_seed(config.seed, "planted")
    leak = Images(seen.dataset, seen.rows[cohort.member], replayed, seed)
    score = ATTACKS[config.attack].scores(_target(config, inputs, leak), cohort.candidates)
    random = numpy_generator(seed, "outcome")
    return separation_of(score, cohort.member, cohort.candidates.label, cohort.candidates.patient, random)


def replayed(images: Tensor, random: torch.Generator) -> Tensor:
    """Copies of images [B, C, *spatial], shifted by a voxel along the last axis, with noise of 0.05 SD."""
    noise = torch.randn(images.shape, generator=random) * (_NOISE * images.std())
    return (images.roll(1, dims=-1) + noise).clamp(-1, 1)


def _write_scores(out_dir: Path, cohort: Cohort, score: np.ndarray) -> None:
    images = cohort.candidates.images
    table = pd.DataFrame(
        {
            "image_id": images.dataset.manifest["image_id"].iloc[images.rows].to_numpy(),
            "label": cohort.candidates.label,
            "member": cohort.member.astype(int),
            "score": [f"{one:.6g}" if np.isfinite(one) else "" for one in score],
        }
    )
    write_table(out_dir / ATTACK_SCORES, table)


def metric_rows(config: AttackConfig, facts: AttackFacts, outcome: Outcome, planted: Rate | None) -> list[MetricRow]:
    """Rows of metrics.csv: each rate, its control, their difference with an interval, by image and by patient."""
    told = "" if facts.gates else "for information only: it has no say in the release"
    rows: list[MetricRow] = []
    key = {"stage": STAGE, "arm": config.attack, "fold": str(config.fold), "gan_seed": str(config.gan_seed)}

    def add(metric: str, value: float | None, unit: str = PER_PATIENT, low: float | None = None,
            high: float | None = None, detail: str = told) -> None:  # fmt: skip
        rows.append(
            MetricRow(
                **key, metric=metric, value=as_text(value), ci_low=as_text(low), ci_high=as_text(high),
                subgroup=unit if unit == PER_PATIENT else "",
                n_patients=str(sum(outcome.patients)), n_images=str(sum(outcome.images)), detail=detail,
            )
        )  # fmt: skip

    for rate in outcome.rates:
        unit = PER_PATIENT if rate.unit == "patient" else "per image"
        if rate.refused:
            add(f"membership_{rate.name}", None, unit, detail=f"not given: {rate.refused}")
            continue
        add(f"membership_{rate.name}", rate.value, unit)
        add(f"membership_{rate.name}_control", rate.control, unit, rate.control_low, rate.control_high,
            "halves of members against each other, and of non-members")  # fmt: skip
        low, high = rate.interval(_ALPHA)
        add(f"membership_{rate.name}_difference", rate.difference, unit, low, high)
    add("worst_patient", outcome.worst, detail="highest score of a training patient, in spreads of the class")
    add("worst_patient_control", outcome.worst_control, detail="the same of an unseen patient")
    add("standing_out", float(outcome.standing_out), detail="training patients above every unseen one")
    add("standing_out_p", outcome.standing_out_p, detail="permutations within classes")
    if planted is not None:
        unit = "per image" if outcome.images != outcome.patients else PER_PATIENT
        add("planted_auroc", planted.value, unit, detail="every training image replayed, shifted, with noise")
    return rows
