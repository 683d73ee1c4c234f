"""Stage `verdict`: all predictions together, every figure with its interval, and the decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from pipeline.config.anomaly import ensemble_arm, normal_classes
from pipeline.config.arms import uses_synthetic
from pipeline.config.experiment import Experiment, ReleaseConfig, VerdictConfig
from pipeline.config.privacy import PrivacyConfig
from pipeline.config.section import Section
from pipeline.core.decisions import Verdicts
from pipeline.core.files import write_json
from pipeline.core.layout import MANIFEST, METRICS_FILE, PREDICTIONS, SPLITS_FILE, VERDICT
from pipeline.core.metrics import MetricRow, as_text, read_metrics, write_metrics
from pipeline.core.records import Record, records_of
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.cohort.cells import CELL_COLUMNS
from pipeline.data.cohort.leakage import assert_no_leakage
from pipeline.measures.classification import weighted_auroc
from pipeline.verdict.comparison import arm_interval
from pipeline.verdict.decide import VerdictPlan, decide
from pipeline.verdict.detectors import detector_rows, detector_table, detector_warnings
from pipeline.verdict.ensembles import ensemble_warnings, with_ensembles
from pipeline.verdict.fits import (
    METRICS,
    Fit,
    TestSet,
    by_patient,
    disease_score,
    draw_test_sets,
    figures_of_fits,
    with_joined_sites,
)
from pipeline.verdict.gate import gated, looks_of
from pipeline.verdict.pixel_means import mean_pixel_rows
from pipeline.verdict.probe import probe_rows, probe_warnings
from pipeline.verdict.release import release_verdict
from pipeline.verdict.representations import representation_rows
from pipeline.verdict.rule import Verdict
from pipeline.verdict.sites import shortcut_rows, site_rows
from pipeline.verdict.strata import WORST_CELL
from pipeline.verdict.subgroups import subgroup_rows, subgroup_warnings
from pipeline.verdict.synthetic_shortcut import guard_rows

STAGE = "downstream"
EXTERNAL = "external"
PER_PATIENT = "per patient"
REVERSE_NOTE = "trained on real images, tested on synthetic ones"


class VerdictStageConfig(Section):
    """`detectors`, `ensembles`: as the configuration names them; `normal`: the classes that are normal to them;
    `release`, `privacy`: which generator may be released, and by which gate; `site`: the manifest's column, if any."""

    verdict: VerdictConfig
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    seed: int
    detectors: tuple[str, ...] = ()
    ensembles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    normal: tuple[str, ...] = ()
    false_alarms: float = 0.05
    release: ReleaseConfig = ReleaseConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    site: str = ""


def verdict_config(experiment: Experiment) -> VerdictStageConfig:
    return VerdictStageConfig(
        verdict=experiment.verdict,
        classes=experiment.data.classes,
        positive=experiment.data.positive,
        seed=derive_seed(experiment.seed, "verdict"),
        detectors=experiment.anomaly.detectors,
        ensembles=experiment.anomaly.ensembles,
        normal=normal_classes(experiment.anomaly, experiment.data.classes, experiment.data.positive),
        false_alarms=experiment.anomaly.false_alarms,
        release=ReleaseConfig(fold=experiment.release.fold, gan_seed=experiment.release.gan_seed),
        privacy=experiment.privacy,
        site=experiment.data.site_column,
    )


def run(config: VerdictStageConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Join the folds' predictions; write predictions.csv, metrics.csv and verdict.json."""
    assert_no_leakage(read_table(inputs["split"] / SPLITS_FILE), read_table(inputs["split"] / MANIFEST))
    fits = records_of(inputs.values(), "downstream")
    table = pd.concat([read_table(directory / PREDICTIONS) for _, directory in fits], ignore_index=True)
    write_table(out_dir / PREDICTIONS, table)
    plan = plan_of(config.verdict, config.positive, config.seed)
    further = _further_rows(config, inputs, table, plan)
    others = _others(inputs)
    guarded = guard_rows(table, others, plan)
    scored = with_ensembles(detector_table(inputs, table, config.normal), config.ensembles)
    detectors = (*config.detectors, *map(ensemble_arm, config.ensembles))
    detected = detector_rows(
        scored, detectors, config.false_alarms, alpha=plan.alpha, bootstrap=plan.bootstrap, seed=plan.seed
    )
    made = (
        arm_metrics(table, config, plan),
        representation_rows(table, plan, "+".join(config.positive)),
        reverse_check(table, config),
        further,
        others,
        guarded,
        detected,
        mean_pixel_rows(others),
    )
    write_metrics(out_dir, chain(*made))
    utility = utility_of(table, plan)
    utility = gated(utility, looks_of(utility, table, others))
    audits = [record for record, _ in records_of(inputs.values(), "privacy", "attack")]
    release = release_verdict(audits, config.release, config.privacy)
    verdicts: Verdicts = {"utility": utility.as_json(), "release": release}
    write_json(out_dir / VERDICT, verdicts)
    silent = (
        *detector_warnings(scored, detected, config.false_alarms),
        *ensemble_warnings(scored, config.ensembles),
    )
    notes = (*subgroup_warnings(further), *probe_warnings([*further, *guarded]), *silent)
    return Record(kind="verdict", figures={"decision": utility.decision, "predictions": len(table)}, notes=notes)


def _further_rows(
    config: VerdictStageConfig, inputs: Mapping[str, Path], table: pd.DataFrame, plan: VerdictPlan
) -> list[MetricRow]:
    """Subgroups, the confounder probe, the sites and the external site, where the configuration asks for them."""
    manifest = read_table(inputs["split"] / MANIFEST)
    rows = subgroup_rows(table, manifest, config.verdict.subgroups, plan)
    columns = tuple(name for name in config.verdict.probe if name != config.site)
    if columns:
        dataset = open_dataset(inputs["prepare"])
        rows += probe_rows(dataset, manifest, table, columns, plan, config.classes)
    if config.site:
        splits = read_table(inputs["split"] / SPLITS_FILE)
        trained = set(splits["image_id"][splits["split"] == "train"])
        rows += site_rows(table, plan)
        dataset = open_dataset(inputs["prepare"])
        rows += shortcut_rows(dataset, manifest, table, config.site, trained, plan, config.classes)
    if (table["split"] == EXTERNAL).any():
        there = arm_metrics(at_external_site(table), config, plan)
        rows += [replace(row, split=EXTERNAL) for row in there]
    return rows


def at_external_site(table: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the external site's images as test images, in no cell; thresholds stay those of val."""
    table = table.drop(columns=[name for name in CELL_COLUMNS if name in table])
    return table[table["split"].isin(["val", EXTERNAL])].assign(
        split=lambda rows: rows["split"].replace(EXTERNAL, "test")
    )


def with_external(verdict: Verdict, table: pd.DataFrame, plan: VerdictPlan) -> Verdict:
    """The verdict with what the same comparison shows at the external site; it does not decide."""
    if not verdict.evidence or not (table["split"] == EXTERNAL).any():
        return verdict
    endpoint = "auroc" if plan.endpoint == WORST_CELL else plan.endpoint
    own = replace(plan, arm=verdict.evidence["arm"], stratum="", endpoint=endpoint)
    there = decide(at_external_site(table), own)
    reason = f"At the external site ({there.evidence['n_patients']} patients): {there.reasons[0]}"
    evidence = verdict.evidence | {"external": there.evidence}
    return replace(verdict, reasons=(*verdict.reasons, reason), evidence=evidence)


def plan_of_run(experiment: Experiment) -> VerdictPlan:
    """The plan by which a run of `experiment` decides, with the seed of its draws."""
    config = verdict_config(experiment)
    return plan_of(config.verdict, config.positive, config.seed)


def utility_of(table: pd.DataFrame, plan: VerdictPlan) -> Verdict:
    """The utility verdict on predictions, with what they show at an external site.

    Raises:
        DataError, LeakageError: as `decide`.
    """
    return with_external(decide(table, plan), table, plan)


def plan_of(rule: VerdictConfig, positive: tuple[str, ...], seed: int) -> VerdictPlan:
    """The plan that a configuration fixes before the run."""
    return VerdictPlan(
        positive=positive,
        endpoint=rule.endpoint,
        margin=rule.margin,
        alpha=rule.alpha,
        bootstrap=rule.bootstrap,
        seed=seed,
        threshold=rule.threshold,
        unit=rule.unit,
        arm=rule.arm,
        comparisons=rule.comparisons,
        stratum=rule.stratum,
    )


def arm_metrics(table: pd.DataFrame, config: VerdictStageConfig, plan: VerdictPlan) -> list[MetricRow]:
    """Figures of every fit and the means of every arm: disease against the rest, each class against the rest, macro.

    Disease against the rest comes once more for patients with several images, in rows whose subgroup is `per patient`;
    not where every patient of a side of a fold has disease (or none), as with lesions beside normal tissue.
    """
    sides = {"+".join(config.positive): config.positive}
    if len(config.classes) > 2:
        sides |= {name: (name,) for name in config.classes}
    rows: list[MetricRow] = []
    tests = draw_test_sets(table, plan.bootstrap, plan.seed)
    by_class: dict[str, list[Fit]] = {}
    for label, positive in sides.items():
        by_class[label] = figures_of_fits(table, positive, tests, threshold=plan.threshold)
        rows += _rows(by_class[label], label, tests, plan)
    if len(config.classes) > 2:
        rows += _rows(_macro([by_class[name] for name in config.classes]), "macro", tests, plan)
    if any(test.num_patients < len(test.image_ids) for test in tests.values()):
        rows += _patient_rows(table, config, plan)
    return rows


def _patient_rows(table: pd.DataFrame, config: VerdictStageConfig, plan: VerdictPlan) -> list[MetricRow]:
    patients = by_patient(with_joined_sites(table[table["split"].isin(["val", "test"])]), config.positive)
    if (patients.groupby(["fold", "split"])["disease"].nunique() < 2).any():
        return []
    tests = draw_test_sets(patients, plan.bootstrap, plan.seed)
    fits = figures_of_fits(patients, ("disease",), tests, threshold=plan.threshold)
    return [replace(row, subgroup=PER_PATIENT) for row in _rows(fits, "+".join(config.positive), tests, plan)]


def _macro(classes: Sequence[Sequence[Fit]]) -> list[Fit]:
    """The plain mean over classes, each against the rest, fit by fit."""
    return [
        Fit(
            first.arm, first.fold, first.gan_seed, first.seed, float("nan"),
            {metric: np.mean([fit.values[metric] for fit in fits], axis=0) for metric in METRICS},
        )
        for fits in zip(*classes, strict=True)
        for first in fits[:1]
    ]  # fmt: skip


def _rows(fits: Sequence[Fit], label: str, tests: dict[str, TestSet], plan: VerdictPlan) -> list[MetricRow]:
    rows: list[MetricRow] = []
    for fit in fits:
        key = {"arm": fit.arm, "fold": fit.fold, "seed": fit.seed, "gan_seed": fit.gan_seed, "label": label}
        size = {"n_patients": str(tests[fit.fold].num_patients), "n_images": str(len(tests[fit.fold].image_ids))}
        if np.isfinite(fit.threshold):
            rows.append(MetricRow(stage=STAGE, **key, split="val", metric="threshold", value=as_text(fit.threshold)))
        for metric, values in fit.values.items():
            rows.append(MetricRow(stage=STAGE, **key, **size, split="test", metric=metric, value=as_text(values[0])))
    size = {
        "n_patients": str(len(set().union(*(test.patients for test in tests.values())))),
        "n_images": str(len(set().union(*(test.image_ids for test in tests.values())))),
    }
    for arm in dict.fromkeys(fit.arm for fit in fits):
        mine = [fit for fit in fits if fit.arm == arm]
        for metric in METRICS:
            found = arm_interval(mine, metric, tests, plan.alpha)
            bounds = {"ci_low": as_text(found.low), "ci_high": as_text(found.high)}
            key = {"arm": arm, "label": label, "detail": f"mean of {len(mine)} fits"}
            value = as_text(found.value)
            rows.append(MetricRow(stage=STAGE, **key, **size, **bounds, split="test", metric=metric, value=value))
    return rows


def reverse_check(table: pd.DataFrame, config: VerdictStageConfig) -> list[MetricRow]:
    """How a real-trained classifier judges synthetic images: AUROC of the disease side, no interval (no patients)."""
    rows = []
    asked = (table["split"] == "synthetic") & ~table["arm"].map(uses_synthetic)
    for key, group in table[asked].groupby(["arm", "fold", "gan_seed", "seed"]):
        arm, fold, gan_seed, seed = map(str, key)
        disease = group["label"].isin(config.positive).to_numpy()
        value = weighted_auroc(disease_score(group, config.positive), disease, np.ones((1, len(group))))[0]
        rows.append(
            MetricRow(
                stage=STAGE, arm=arm, fold=fold, seed=seed, gan_seed=gan_seed, split="synthetic",
                label="+".join(config.positive), metric="auroc", value=as_text(value), n_images=str(len(group)),
                detail=REVERSE_NOTE,
            )
        )  # fmt: skip
    return rows


def _others(inputs: Mapping[str, Path]) -> list[MetricRow]:
    """Figures that stages wrote themselves. A detector has some where it has maps and the images have masks."""
    found = records_of(inputs.values(), "privacy", "attack", "quality", "shift", "detect")
    return [
        row
        for record, directory in found
        if record.kind != "detect" or (directory / METRICS_FILE).is_file()
        for row in read_metrics(directory)
    ]
