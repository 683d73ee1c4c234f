"""The utility verdict: does augmentation help? Public, and usable on anyone's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM, arm_facts, is_candidate
from pipeline.core.errors import DataError, LeakageError
from pipeline.core.patients import known_patients
from pipeline.data.cohort.cells import CELL_COLUMNS
from pipeline.data.cohort.leakage import SIDES, straddling
from pipeline.data.cohort.tables import read_user_table
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.paired import holm
from pipeline.verdict.comparison import Mean, combine, units
from pipeline.verdict.fits import Fit, TestSet, disease_score, figures_of_fits
from pipeline.verdict.power import patients_needed, shown_difference, smallest_differences
from pipeline.verdict.rule import Compared, Verdict, judge
from pipeline.verdict.side_tests import side_tests
from pipeline.verdict.strata import by_cells, in_stratum, judged_images, sides_judged, stratum_words, too_thin

REQUIRED = ("arm", "fold", "seed", "gan_seed", "split", "image_id", "patient_id", "label")
_HEALTHY = ("normal", "healthy", "negative", "benign", "no_finding", "no finding", "control", "none", "absent", "0")


@dataclass(frozen=True)
class VerdictPlan:
    """The decision rule, fixed before the run.

    Attributes:
        positive: the disease side. Empty: every class but the one that is called normal, healthy, negative, benign
            or the like; where none is, the last class by name.
        endpoint: a metric of `figures.METRICS` that is larger for the better (disease against the rest).
        margin: a gain below it does not matter.
        alpha: the interval covers 1 - alpha.
        bootstrap: draws of patients.
        threshold: youden-smoothed, youden, sensitivity@T or specificity@T, fixed on val fit by fit.
        unit: image, or patient: the mean score of a patient's images, diseased if any of them is.
        arm: the candidate of the primary comparison. Empty: the `…+synthetic…` (or curated) arm that is best on val,
            else the best of the other candidates.
        comparisons: further planned pairs (arm, reference); the primary and these share alpha by Holm's rule.
        stratum: the test images of the endpoint: balanced, reversed, site=NAME, or "" for all (docs/sites.md).
    """

    positive: tuple[str, ...] = ()
    endpoint: str = "auroc"
    margin: float = 0.02
    alpha: float = 0.05
    bootstrap: int = 2000
    seed: int = 0
    threshold: str = "youden-smoothed"
    unit: str = "image"
    arm: str = ""
    comparisons: tuple[tuple[str, str], ...] = ()
    stratum: str = ""


def decide(predictions: pd.DataFrame, plan: VerdictPlan | None = None) -> Verdict:
    """Compare one candidate arm with `real+classical`, and with all controls of its kind, on the test patients.

    `helps` when the paired interval of the endpoint's difference lies above 0, `harms` below 0, `no_benefit` when it
    includes 0 and either lies below the margin or is equivalent (its 90 % interval inside the margin), else
    `inconclusive`. The interval covers patients and fits; `helps` also needs the crossed bootstrap's BCa interval above
    0, every required control among the arms, and a gain over each control.

    Args:
        predictions: the columns of `predictions.csv`, a score_<class> column a class.

    Raises:
        DataError: a column, an arm or a split is missing, or the plan names what is not there.
        LeakageError: a patient or an image is on more than one side of a fold.
    """
    plan = plan or VerdictPlan()
    table = checked(predictions)
    plan = replace(plan, positive=plan.positive or disease_side(table))
    _check_plan(table, plan)
    tested = in_stratum(table, plan.stratum)
    if thin := too_thin(tested, plan.positive, plan.endpoint, plan.stratum):
        return Verdict("inconclusive", (thin,), {})
    sides = sides_judged(tested, plan.positive, plan.unit, plan.endpoint, plan.stratum)
    table, positive, tests = judged_images(table, plan.positive, plan.unit, plan.stratum, plan.bootstrap, plan.seed)
    plan = replace(plan, positive=positive)
    arms = list(table["arm"].unique())
    arm = plan.arm or best_on_val(table, _contenders(arms), plan)
    if not arm:
        return Verdict("inconclusive", ("No arm used synthetic images beside real ones: nothing was compared.",), {})
    pairs = _pairs(arm, arms, plan)
    needed = sorted({name for pair in pairs for name in pair})
    fits = figures_of_fits(table[table["arm"].isin(needed)], plan.positive, tests, (plan.endpoint,), plan.threshold)
    compared = compare_pairs(pairs, fits, tests, plan)
    facts = arm_facts(arm)
    missing = [name for name in (facts.controls if facts else ()) if name not in arms]
    primary = compared[0]
    evidence = _evidence(primary, compared, fits, tests, plan) | {
        "smallest_shown": _smallest_shown(primary, sides, plan),
        "patients_needed": _patients_needed(sides, plan),
    }
    if not by_cells(plan.endpoint, plan.stratum):  # no classical test weighs cells
        evidence["tests"] = side_tests(table, (arm, REFERENCE_ARM), fits, plan.positive, tests, primary.difference)
    verdict = judge(compared, missing, evidence)
    if not plan.stratum:
        return verdict
    said = f"Judged on {stratum_words(plan.stratum)}; thresholds are those of all validation images."
    return replace(verdict, reasons=(verdict.reasons[0], said, *verdict.reasons[1:]))


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions as text, in whatever encoding and with whatever separator it was saved.

    Raises:
        DataError: the file is not there, or is no table; the message says what it is.
    """
    return read_user_table(path).reset_index(drop=True)


def _check_plan(table: pd.DataFrame, plan: VerdictPlan) -> None:
    present = set(table["arm"])
    absent = {arm for arm in (plan.arm, *(name for pair in plan.comparisons for name in pair)) if arm} - present
    if absent:
        raise DataError(f"predictions: the plan names the arms {sorted(absent)}, but there are {sorted(present)}.")
    lacking = [name for name in plan.positive if f"score_{name}" not in table]
    if lacking:
        raise DataError(f"predictions: there is no column score_{lacking[0]} for the disease side {lacking[0]}.")
    if table.loc[table["split"] == "test"].empty:
        raise DataError("predictions: there is no row whose split is test.")


def checked(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with text keys and only val and test rows.

    Raises:
        DataError: something the verdict needs is missing; the message names it.
        LeakageError: a patient or an image is on more than one side of a fold.
    """
    missing = [name for name in REQUIRED if name not in predictions.columns]
    scores = [name for name in predictions.columns if name.startswith("score_")]
    if missing or not scores:
        missing = missing or ["score_<class>"]
        raise DataError(f"predictions: the columns {missing} are missing; there are {list(predictions.columns)}.")
    table = predictions[predictions["split"].isin(SIDES)].copy()
    table["patient_id"] = known_patients(table)
    for name in (*REQUIRED, *(column for column in CELL_COLUMNS if column in table)):
        table[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
    _refuse_leaks(table)
    table = table[table["split"].isin(["val", "test"])]
    if REFERENCE_ARM not in set(table["arm"]):
        raise DataError(f"predictions: the arm {REFERENCE_ARM} is missing: there is nothing to compare with.")
    try:
        numbers = table[scores].astype(float)
    except ValueError as error:
        raise DataError(f"predictions: the columns {scores} must hold numbers.") from error
    if not np.isfinite(numbers.to_numpy()).all():
        raise DataError("predictions: some scores are empty or not finite.")
    table[scores] = numbers
    facts = table[["fold", "image_id", "patient_id", "label"]].drop_duplicates()
    unlike = int(facts.duplicated(["fold", "image_id"]).sum())
    if unlike:
        raise DataError(
            f"predictions: {unlike} image(s) have another label or patient_id in one arm or fit than in another. Arms "
            "are compared on the same images: give each image one label and one patient."
        )
    return table


def _refuse_leaks(table: pd.DataFrame) -> None:
    """No image and no patient of a fold is on two sides: what is tested chose no threshold and no arm."""
    for fold, rows in table.drop_duplicates(["fold", "split", "image_id", "patient_id"]).groupby("fold"):
        images, patients = (straddling(keys, rows["split"]) for keys in (rows["image_id"], known_patients(rows)))
        if images or patients:
            raise LeakageError(
                f"predictions: in fold {fold}, {patients} patient(s) and {images} image(s) are in more than one of "
                "train, val, test and external. Thresholds and arms are chosen on val: its patients must not be "
                "tested. Take them out of one side."
            )


def disease_side(table: pd.DataFrame) -> tuple[str, ...]:
    """What a plan without `positive` means; see there."""
    classes = sorted(name.removeprefix("score_") for name in table.columns if name.startswith("score_"))
    healthy = [name for name in classes if name.lower() in _HEALTHY]
    return tuple(name for name in classes if name not in healthy) if len(healthy) == 1 else (classes[-1],)


def _contenders(arms: Sequence[str]) -> list[str]:
    """Arms for the primary comparison: those that add synthetic images, or else all candidates."""
    candidates = [arm for arm in arms if is_candidate(arm)]
    added = [arm for arm in candidates if arm.startswith(f"{REFERENCE_ARM}+")]
    return added or candidates


def best_on_val(table: pd.DataFrame, arms: Sequence[str], plan: VerdictPlan) -> str:
    """The arm with the highest mean AUROC on validation images, empty if there is none; the test set has no say."""
    if len(arms) <= 1:
        return arms[0] if arms else ""
    return max(arms, key=lambda arm: _val_auroc(table[(table["arm"] == arm) & (table["split"] == "val")], plan))


def _val_auroc(val: pd.DataFrame, plan: VerdictPlan) -> float:
    values = [
        weighted_auroc(
            disease_score(rows, plan.positive), rows["label"].isin(plan.positive).to_numpy(), np.ones((1, len(rows)))
        )[0]
        for _, rows in val.groupby(["fold", "gan_seed", "seed"])
    ]
    return float(np.mean(values))


def _pairs(arm: str, arms: Sequence[str], plan: VerdictPlan) -> list[tuple[str, str]]:
    """The primary pair, then the same arm with its other controls, then what else was planned, then what is there."""
    found = [(arm, REFERENCE_ARM)]
    for one in (arm, *(other for other in arms if is_candidate(other) and other != arm)):
        facts = arm_facts(one)
        controls = (*facts.controls, *facts.also) if facts else ()
        found += [(one, control) for control in controls if control in arms]
        if one == arm:
            found += plan.comparisons
    return list(dict.fromkeys(found))


def compare_pairs(
    pairs: Sequence[tuple[str, str]], fits: Sequence[Fit], tests: dict[str, TestSet], plan: VerdictPlan
) -> list[Compared]:
    """Each (arm, reference) compared; the first and those in `plan.comparisons` share alpha by Holm's rule.

    Raises:
        DataError: an arm was not fitted in the folds of its reference.
    """
    by_arm = {name: [fit for fit in fits if fit.arm == name] for pair in pairs for name in pair}
    means: list[Mean] = []
    for arm, reference in pairs:
        lacking = {fit.fold for fit in by_arm[arm]} ^ {fit.fold for fit in by_arm[reference]}
        if lacking:
            raise DataError(
                f"predictions: {arm} and {reference} were not fitted in the same folds ({sorted(lacking)})."
            )
        sides = [(1.0, by_arm[arm]), (-1.0, by_arm[reference])]
        means.append(combine(sides, plan.endpoint, tests, plan.alpha, crossed=True))
    planned = {pairs[0], *plan.comparisons}
    p_values = [mean.estimate.p_value() if mean.estimate else 1.0 for mean in means]
    family = [place for place, pair in enumerate(pairs) if pair in planned]
    adjusted = dict(zip(family, holm([p_values[place] for place in family]), strict=True))
    return [
        Compared(
            arm, reference, mean, p_values[place], adjusted.get(place), plan.alpha, plan.margin, plan.endpoint,
            repeats=min(len(by_arm[arm]), len(by_arm[reference])) // len(tests),
        )
        for place, ((arm, reference), mean) in enumerate(zip(pairs, means, strict=True))
    ]  # fmt: skip


def _smallest_shown(primary: Compared, sides: tuple[int, int], plan: VerdictPlan) -> dict[str, float | None]:
    """The smallest difference that 80 % of runs would show: by the interval's own error, and as told before a run."""
    found = primary.difference.estimate
    best, worst = smallest_differences(plan.endpoint, plan.alpha, *sides)
    known = {
        "measured": shown_difference(found, plan.alpha) if found else None,
        "planned_low": best,
        "planned_high": worst,
    }
    return {name: value if value is not None and np.isfinite(value) else None for name, value in known.items()}


def _patients_needed(sides: tuple[int, int], plan: VerdictPlan) -> dict[str, int] | None:
    """Test patients to see a gain of the margin, as `radaug validate` says it; None if a side is empty."""
    if min(sides) < 1:
        return None
    fewest, most = patients_needed(plan.endpoint, plan.alpha, plan.margin, *sides)
    return {"fewest": fewest, "most": most}


def _evidence(
    primary: Compared, compared: Sequence[Compared], fits: Sequence[Fit], tests: dict[str, TestSet], plan: VerdictPlan
) -> dict[str, Any]:
    candidate, reference = ([fit for fit in fits if fit.arm == arm] for arm in (primary.arm, primary.reference))

    def mean(side: Sequence[Fit]) -> float:
        folds = [units([fit for fit in side if fit.fold == fold], plan.endpoint)[:, 0].mean() for fold in tests]
        return float(np.mean(folds))

    return {
        **primary.as_json(),
        "arm_mean": mean(candidate),
        "reference_mean": mean(reference),
        "plan": asdict(plan),
        "n_patients": len(set().union(*(test.patients for test in tests.values()))),
        "n_images": len(set().union(*(test.image_ids for test in tests.values()))),
        "n_folds": len(tests),
        "n_gan_seeds": len({fit.gan_seed for fit in candidate}),
        "n_classifier_seeds": len({fit.seed for fit in candidate}),
        "comparisons": [one.as_json() for one in compared],
    }
