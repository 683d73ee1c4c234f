"""How the utility verdict was reached: the rule, every comparison, the methods sentence and the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config.experiment import Experiment
from pipeline.report.names import family_title, network_title
from pipeline.report.reading import Run
from pipeline.report.tables import PER_PATIENT, Table
from pipeline.report.words import (
    arm_title,
    confidence,
    count,
    metric_name,
    named_arm,
    p_value,
    patients_needed_words,
    threshold_words,
)

_TONES = {"failed": "bad", "not judged": "caution"}
_LAYOUTS = {
    "holdout": "patients were divided once into training, validation and test",
    "kfold": "every patient was tested in one of {folds} folds",
    "column": "the data's own division into training, validation and test was kept",
}


def plan_lines(run: Run) -> list[tuple[str, str]]:
    """What a reader must know before the verdict: the plan, the looks, and the patients that it would take."""
    evidence = _evidence(run)
    plan = evidence.get("plan")
    lines = []
    if plan:
        endpoint, margin = metric_name(plan["endpoint"]), f"{100 * plan['margin']:.1f} points"
        primary = f"{named_arm(evidence['arm'])} against {named_arm(evidence['reference'])}"
        chosen = "named before the run" if plan["arm"] else "the arm was chosen on validation patients"
        lines.append(("Compared", f"{primary}; {chosen}"))
        lines.append(("By", f"{endpoint} on test patients; a gain below {margin} does not matter"))
    needed = patients_needed_words(evidence)
    if needed:
        lines.append(("Patients needed", needed))
    if "looks" in run.verdict:
        number = run.verdict["looks"]["look"]
        told = "the first one" if number == 1 else "what is chosen after several is too good"
        lines.append(("Looks at the test patients", f"this is number {number}: {told}"))
    return lines


def rule_table(run: Run) -> Table | None:
    """What was fixed before the run."""
    plan = _evidence(run).get("plan")
    if not plan:
        return None
    pairs = "; ".join(f"{arm} against {reference}" for arm, reference in plan["comparisons"]) or "none but the primary"
    rows = (
        ("Endpoint", f"{metric_name(plan['endpoint'])}, one {plan['unit']} counting once"),
        *([("Stratum of the test images", plan["stratum"])] if plan.get("stratum") else []),
        ("Margin: a gain below it does not matter", f"{100 * plan['margin']:.1f} points"),
        ("Interval", f"{100 * (1 - plan['alpha']):g} %, {plan['bootstrap']} draws of patients"),
        ("Threshold of each classifier", f"{threshold_words(plan['threshold'])}, on its validation images"),
        ("Arm of the primary comparison", plan["arm"] or "the one that is best on validation images"),
        ("Further planned comparisons", pairs),
    )
    return Table("The rule of decision, fixed before the run.", ("What", "How"), rows)


def comparisons_table(run: Run) -> Table | None:
    """Every comparison that was made, the primary one first."""
    compared = _evidence(run).get("comparisons")
    if not compared:
        return None
    rows, tones = [], []
    for place, one in enumerate(compared):
        kind = "primary" if place == 0 else "planned" if one["p_holm"] is not None else "not planned"
        shown = _points(one["difference"], one["ci_low"], one["ci_high"])
        crossed = _points(one["difference"], one["bca_low"], one["bca_high"])
        p_values = (p_value(one["p"]), p_value(one["p_holm"]))
        rows.append(
            (
                arm_title(one["arm"]),
                arm_title(one["reference"]),
                kind,
                shown,
                crossed,
                *p_values,
                one["decision"].replace("_", " "),
            )
        )
        tones.append({"harms": "bad", "inconclusive": "caution"}.get(one["decision"], "") if place == 0 else "")
    header = (
        "Arm",
        "Against",
        "Comparison",
        "Difference, points (interval)",
        "Crossed bootstrap",
        "p",
        "p (Holm)",
        "Alone",
    )
    endpoint = metric_name(compared[0]["endpoint"])
    caption = f"Every comparison that was made, of {endpoint}; 'alone': what the rule says of this pair."
    return Table(caption, header, tuple(rows), tuple(tones))


def generators_table(run: Run) -> Table | None:
    """What the gate saw of each generator; None where nothing was compared."""
    found = _evidence(run).get("generators")
    if not found or not found["looks"]:
        return None
    if any(look.get(name) is not None for look in found["looks"] for name in ("site_left", "class_lost")):
        return _translators_table(found)
    rows, tones = [], []
    for look in found["looks"]:
        where = f"fold {look['fold']}, GAN seed {look['gan_seed']}"
        label = "all images" if look["label"] == "all" else look["label"]
        place, repeats = ("–" if look[name] is None else f"{100 * look[name]:.0f} %" for name in ("place", "repeats"))
        kids = (_thousandfold(look[name]) for name in ("kid", "floor", "ceiling"))
        rows.append((where, label, *kids, place, repeats, str(look["validation"]), look["state"]))
        tones.append(_TONES.get(look["state"], ""))
    header = (
        "GAN", "Worst class", "KID x 1000", "Real validation images", "Blank or shuffled images", "On the way between",
        "Repeats, worst class", "Validation images", "Gate",
    )  # fmt: skip
    caption = (
        f"Did the generators work? Passed: at most {100 * found['place_limit']:.0f} % of the way from real validation "
        f"images to blank or shuffled ones, and at most {100 * found['repeats_limit']:.0f} % of a class nearly equal "
        f"another of its images. Below {found['least_validation']} validation images nothing is judged."
    )
    return Table(caption, header, tuple(rows), tuple(tones))


def _translators_table(found: Mapping[str, Any]) -> Table:
    """The same of translators between sites."""
    rows, tones = [], []
    for look in found["looks"]:
        ways = ("–" if look[name] is None else f"{100 * look[name]:.0f} %" for name in ("site_left", "class_lost"))
        rows.append((f"fold {look['fold']}, GAN seed {look['gan_seed']}", *ways, look["state"]))
        tones.append(_TONES.get(look["state"], ""))
    limit = f"{100 * found['place_limit']:.0f} %"
    caption = (
        f"Did the translators work? Passed: at most {limit} of what tells the site is left in translations, and at "
        f"most {limit} of what tells the class is lost, by classifiers that never saw the patients."
    )
    return Table(caption, ("GAN", "Of the site is left", "Of the class is lost", "Gate"), tuple(rows), tuple(tones))


def _thousandfold(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.0f}"


def side_tests_table(run: Run) -> Table | None:
    """The classical tests of the primary pair, which do not decide."""
    tests = _evidence(run).get("tests")
    if not tests:
        return None
    rows = []
    if tests.get("delong_p") is not None:
        rows.append(("DeLong, AUROC of the scores averaged over fits", p_value(tests["delong_p"]), ""))
    for side in ("sensitivity", "specificity"):
        found = tests.get(f"mcnemar_{side}")
        if found:
            who = f"only the arm right: {found['only_arm']}; only the reference right: {found['only_reference']}"
            rows.append((f"McNemar, {side} of majority calls", p_value(found["p"]), who))
    if "sign_flip_p" in tests:
        rows.append(("Sign flips over labelled draws or folds", p_value(tests["sign_flip_p"]), ""))
    caption = (
        "Classical tests of the primary pair. They know these fits only, not others: they are told and do not decide."
    )
    return Table(caption, ("Test", "p", "Images"), tuple(rows)) if rows else None


def methods_sentence(run: Run) -> str:
    """A paragraph for a paper's methods section; empty where nothing was compared."""
    evidence, experiment = _evidence(run), run.experiment
    plan = evidence.get("plan")
    if not plan:
        return ""
    layout = _LAYOUTS[experiment.data.split.kind].format(folds=evidence["n_folds"])
    gan = experiment.gan
    draws = (
        f"; {count(evidence['n_folds'], 'disjoint labelled draw')} of the training patients, each with its own GAN"
        if evidence["paired_on_draws"]
        else ""
    )
    return (
        f"Classifiers ({_kind(experiment)}, "
        f"{count(evidence['n_classifier_seeds'], 'seed')} an arm) were trained with and without synthetic images of a "
        f"conditional GAN ({family_title(gan.family)}, {gan.num_images:,} images shown, "
        f"{count(evidence['n_gan_seeds'], 'GAN seed')}), all arms under the same "
        f"steps, schedule and classical augmentation; {layout}{draws}. The GAN, the thresholds "
        f"({threshold_words(plan['threshold'])}) and the choice of the arm used training and validation patients only. "
        f"The primary endpoint was the difference in {metric_name(plan['endpoint'])} between "
        f"{named_arm(evidence['arm'])} and {named_arm(evidence['reference'])} on "
        f"{count(evidence['n_patients'], 'test patient')} ({count(evidence['n_images'], 'image')}), with a "
        f"{confidence(evidence)} interval over patients (bootstrap of "
        "whole patients) and repeated fits (t quantile with Satterthwaite's degrees of freedom), checked by a crossed "
        f"BCa bootstrap; p-values were adjusted by Holm's method over the planned comparisons. A gain below "
        f"{100 * plan['margin']:.1f} points was taken not to matter."
    )


def _kind(experiment: Experiment) -> str:
    classifier = experiment.classifier
    if classifier.on_features:
        return f"{network_title(classifier.network)} on EfficientNet-Lite0 features"
    return f"{network_title(classifier.network)}, {classifier.steps} steps"


def checklist_table(run: Run) -> Table:
    """What TRIPOD+AI (Collins et al., BMJ 385 (2024)) asks of a study like this, and where the answer is."""
    evidence, ledger = _evidence(run), run.ledger
    before = None if ledger is None else len(ledger)
    number = run.verdict["looks"]["look"] if "looks" in run.verdict else before
    looks = "no ledger" if number is None else count(number, "look")
    missing = run.missing_patients
    people = f"{missing} images have no patient id" if missing else "every image has a patient id"
    calibrated = "yes: Brier score and calibration error" if (run.metrics["metric"] == "brier").any() else "no"
    external = "yes" if (run.metrics["split"] == "external").any() else "no: one source only"
    rows = (
        ("Source of data, who was left out and why", "sections Data and Audit"),
        ("Outcome and disease side", ", ".join(run.experiment.data.positive)),
        ("Sample size", f"{count(evidence.get('n_patients', 0), 'test patient')}; see the interval's width"),
        ("Patients kept apart between training, validation and test", f"checked; {people}"),
        ("Model, training and every setting", "section How it was made"),
        ("Comparison with an existing method", "the arms' controls, in section Classifiers"),
        ("Discrimination with intervals", "section Classifiers"),
        ("Calibration", calibrated),
        ("Subgroups and fairness", "yes" if _subgroups(run) else "no: name columns in verdict.subgroups"),
        ("External test", external),
        ("How often the test patients were looked at", looks),
        ("Code and versions", "section How it was made"),
        ("Ethics, funding, registration, intended use", "for you to add: radaug does not know"),
    )
    return Table("A checklist after TRIPOD+AI.", ("Asked", "Answer"), rows)


def _subgroups(run: Run) -> bool:
    of_arms = run.metrics[run.metrics["stage"] != "anomaly"]
    return bool((of_arms["subgroup"].ne("") & of_arms["subgroup"].ne(PER_PATIENT)).any())


def _evidence(run: Run) -> dict[str, Any]:
    return dict(run.verdict["utility"]["evidence"])


def _points(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
