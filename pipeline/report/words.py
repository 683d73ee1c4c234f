"""Plain words for clinicians: the verdicts as sentences, the names of arms and metrics."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.arms import arm_facts, arm_ratio
from pipeline.core.decisions import Decision
from pipeline.core.errors import UserError

METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "balanced_accuracy": "Balanced accuracy",
    "worst_cell": "Accuracy in the worst cell",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "ece": "Calibration error",
    "threshold": "Threshold",
}

_UTILITY = {
    "helps": ("good", "GAN augmentation helps"),
    "harms": ("bad", "GAN augmentation harms"),
    "no_benefit": ("neutral", "No benefit from GAN augmentation"),
    "inconclusive": ("caution", "Inconclusive: these data cannot tell"),
}
_BY_GENERATORS = {
    "failed": {"inconclusive": ("caution", "Inconclusive: the generator failed")},
    "not judged": {"no_benefit": ("caution", "No benefit seen, but the generator was not judged")},
}
"""What is said instead where the gate says so of the generators; see pipeline/verdict/gate.py."""
_RELEASE = {
    "release": ("good", "The named generator may be released"),
    "refuse": ("bad", "Release refused"),
    "not_audited": ("caution", "Release: not audited"),
}
_ARM_TITLES = {
    "real": "Real images, unaltered",
    "real+classical": "Real images",
    "real+classical+synthetic": "Real + synthetic images",
    "real+classical+curated": "Real + filtered synthetic images",
    "real+classical+oversampling": "Real images, duplicated",
    "real+classical+mixup": "Real images, mixed in pairs",
    "real+classical+classweights": "Real images, rare class weighted",
    "real+classical+logitadjustment": "Real images, logits adjusted",
    "real+classical+refit": "Real images, last layer fitted again",
    "real+classical+cellbalanced": "Real images, sites × classes balanced",
    "real+classical+groupdro": "Real images, group DRO over sites × classes",
    "real+classical+bigaug": "Real images, stronger transforms of appearance",
    "real+classical+standardised": "Real images, each standardised",
    "real+classical+equalised": "Real images, histograms equalised",
    "real+classical+sitecentred": "Real images less their site's mean",
    "real+classical+crosssitemixup": "Real images, mixed in pairs across sites",
    "real+classical+bigaug+crosssitemixup": "Real images, mixed across sites, stronger transforms",
    "real+classical+amplitudemix": "Real images, Fourier amplitudes mixed across sites",
    "real+classical+matched": "Real images, histogram of the unlabelled site",
    "real+classical+fourier": "Real images, Fourier amplitudes of the unlabelled site",
    "real+classical+adabn": "Real images, batch norms of the unlabelled site",
    "real+classical+coral": "Real images, features aligned (CORAL)",
    "real+classical+dann": "Real images, features that hide the site (DANN)",
    "real+classical+pseudolabels": "Real + unlabelled images",
    "real+classical+fadingpseudolabels": "Real + unlabelled images, fading",
    "real+classical+fixmatch": "Real + unlabelled images (FixMatch)",
    "real+classical+fadingpseudolabels+fixmatch": "Real + unlabelled images, fading (and FixMatch)",
    "pretrained+classical": "Real images, pre-trained network",
    "synthetic+classical": "Synthetic images only",
    "synthetic-pretrained": "Synthetic images first, then real",
    "cells-pretrained": "Real images, sites × classes balanced, twice as long",
    "cells-synthetic-pretrained": "Synthetic images of all sites first, then real",
    "cells-consistency": "Real images, equal answers on two copies",
    "translated-consistency": "Real images, equal answers on translations",
    "translated-crosssitemixup": "Real images and translations, mixed across sites",
    "translated-pretrained": "Translations first, then real images",
    "minority-translated": "Real images, rare cells filled with translations",
    "adapted": "Translations to the unlabelled site",
    "adapted-pseudolabels": "Translations, and the unlabelled site's images",
    "harmonised": "Real images, all translated to one site",
    "augmented-pretrained": "Real images, twice as long",
    "minority-synthetic": "Real images, rare class filled with synthetic ones",
    "pool-gan": "Real images + those of a GAN of unlabelled ones",
    "pool-gan+fixmatch": "Real images + those of a GAN of unlabelled ones (and FixMatch)",
    "gan-features": "On features of the GAN's discriminator",
    "random-features": "On features of an untrained network",
    "simclr-features": "On features learnt by contrast (SimCLR)",
    "autoencoder-features": "On features of an autoencoder",
}
"""Without a ratio; all but the first with classical augmentation."""
_MODELS = {"logistic": "Logistic regression", "svm": "Linear SVM"}
_REPRESENTATIONS = {
    "vae": "a VAE's codes",
    "f-anogan": "the GAN's codes",
    "discriminator": "the discriminator's features",
    "effnet": "EfficientNet features",
}
_THRESHOLDS = {
    "youden": "largest Youden index",
    "youden-smoothed": "largest Youden index of the kernel-smoothed distributions of scores",
}
_NARROW = 22
_NOTHING_LEAVES = "Neither the generator nor its images may leave the building."


@dataclass(frozen=True)
class Statement:
    """A verdict in words: `tone` is good, bad, neutral or caution."""

    tone: str
    title: str
    sentences: tuple[str, ...]
    reasons: tuple[str, ...]


def utility_statement(utility: Decision) -> Statement:
    """The utility verdict in words, from verdict.json's `utility`.

    Raises:
        UserError: the decision is none that radaug knows.
    """
    evidence = utility["evidence"]
    generators = dict(evidence.get("generators") or {})
    known = _UTILITY | _BY_GENERATORS.get(str(generators.get("state")), {})
    tone, title = _lookup("utility", str(utility["decision"]), known)
    sentences = (_difference_sentence(evidence), _basis_sentence(evidence))
    # the sentences tell the difference in the reader's words; the verdict's own line says it again for terminals
    reasons = tuple(reason for reason in utility["reasons"] if not reason.startswith("The difference is"))
    return Statement(tone, title, tuple(s for s in sentences if s), reasons)


def release_statement(release: Decision) -> Statement:
    """The release verdict in words, from verdict.json's `release`.

    Raises:
        UserError: the decision is none that radaug knows.
    """
    tone, title = _lookup("release", str(release["decision"]), _RELEASE)
    sentences = () if release["decision"] == "release" else (_NOTHING_LEAVES,)
    return Statement(tone, title, sentences, tuple(release["reasons"]))


def memorisation_sentence(figures: Mapping[str, Any]) -> str:
    """What the memorisation figures of one generator say, or nothing where the rate is not among them."""
    names = ("nearer_to_training_rate", "rate_low", "rate_high", "control_rate", "baseline_rate")
    if not set(names) <= set(figures):
        return ""
    rate, low, high, control, baseline = (f"{100 * figures[name]:.0f} %" for name in names)
    seen = (
        f"{rate} (range {low} to {high}) of the synthetic images lie nearer to a training image than to one of equally "
        f"many held-out images; without memory it would be {baseline}, and for real validation images it is {control}."
    )
    if figures["rate_low"] > figures["baseline_rate"]:
        return f"{seen} This is a sign that the generator remembers its patients."
    return f"{seen} This does not show memory, nor can it rule memory out."


def threshold_words(rule: str) -> str:
    """What a threshold rule means; `sensitivity@0.9` stays as it is."""
    return _THRESHOLDS.get(rule, rule)


def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric.replace("_", " ").capitalize())


def arm_words(arm: str) -> str:
    """What an arm trains on, for instance `real+classical+synthetic@1`."""
    facts = arm_facts(arm)
    if facts is None:
        return ""
    return (
        f"{facts.words}, {count(f'{arm_ratio(arm):g}', 'synthetic one')} for each real one"
        if facts.ratio
        else facts.words
    )


def arm_explained(arm: str) -> str:
    """What an arm trains on, and its name in the files."""
    words = arm_words(arm)
    return f"{words} ({arm})" if words else arm


def arm_title(arm: str) -> str:
    """A short plain name, such as `Real + synthetic images, 1 : 1`; the arm's own name where there is none."""
    head, at, ratio = arm.partition("@")
    facts = arm_facts(arm)
    if facts is not None and facts.representation and facts.model:
        return f"{_MODELS[facts.model]} on {_REPRESENTATIONS[facts.representation]}"
    title = _ARM_TITLES.get(head, "")
    if not title:
        return arm
    return f"{title}, {ratio} : 1" if at else title


def named_arm(arm: str) -> str:
    """The plain name, and the one of the files beside it."""
    title = arm_title(arm)
    return arm if title == arm else f"{title[0].lower()}{title[1:]} ({arm})"


def arm_lines(arm: str) -> str:
    """An arm's plain name in short lines, for narrow places."""
    return "\n".join(textwrap.wrap(arm_title(arm), _NARROW, break_on_hyphens=False))


def number(value: float | int | str | None, digits: int = 3) -> str:
    """A number for a table: `digits` decimals, whole numbers as they are, an en dash where there is none."""
    if value is None or value == "":
        return "–"
    if isinstance(value, str | bool):
        return str(value)
    if not math.isfinite(value):
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    """A p-value for a table, never 0."""
    return "<0.001" if value is not None and value < 0.001 else number(value)


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """`0.912 (0.850 to 0.960)`, or the bare value where no interval was given."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value, digits)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def points_with_interval(difference: float, low: float, high: float) -> str:
    """`+1.2 points (-0.4 to +2.8)`, or the bare difference where no interval was given; shares become points."""
    points = f"{100 * difference:+.1f} points"
    if not (math.isfinite(low) and math.isfinite(high)):
        return points
    return f"{points} ({100 * low:+.1f} to {100 * high:+.1f})"


def count(number_of: int | str, noun: str) -> str:
    """`1 patient`, `2 patients`."""
    plural = {"class": "classes"}.get(noun, f"{noun}s")
    return f"{number_of} {noun if str(number_of) == '1' else plural}"


def confidence(evidence: Mapping[str, Any]) -> str:
    """The interval's level, such as `95 %`."""
    return f"{100 * (1 - float(evidence.get('alpha') or 0.05)):g} %"


def patients_needed_words(evidence: Mapping[str, Any]) -> str:
    """How many test patients it would take to see a gain of the margin; empty where the verdict does not say."""
    needed = evidence.get("patients_needed")
    if not needed:
        return ""
    fewest, most = (f"{round(number, 2 - len(str(number))):,}" for number in (needed["fewest"], needed["most"]))
    margin, there = f"{100 * float(evidence['margin']):.1f} points", evidence["n_patients"]
    return (
        f"about {fewest} to {most} test patients to see a gain of {margin} in 80 % of runs, as two arms err more or "
        f"less alike on them; this run tested {there}"
    )


def _difference_sentence(evidence: dict[str, Any]) -> str:
    difference, arm, reference = (evidence.get(key) for key in ("difference", "arm", "reference"))
    if difference is None:
        return "No difference between the arms could be computed."
    points = 100 * float(difference)
    direction = "higher than" if points > 0 else "lower than" if points < 0 else "from"
    low, high = evidence.get("ci_low"), evidence.get("ci_high")
    interval = "no interval can be given"
    if low is not None and high is not None:
        interval = f"{confidence(evidence)} interval of the difference {100 * low:+.1f} to {100 * high:+.1f} points"
    endpoint = metric_name(str(evidence.get("endpoint", "auroc")))
    name = endpoint if endpoint.isupper() else endpoint.lower()
    change = f"{abs(points):.1f} points {direction} that with {named_arm(str(reference))} ({interval})"
    return f"With {named_arm(str(arm))}, the {name} on test patients was {change}."


def _basis_sentence(evidence: dict[str, Any]) -> str:
    nouns = (
        ("n_patients", "test patient"),
        ("n_images", "test image"),
        ("n_folds", "labelled draw" if evidence.get("paired_on_draws") else "fold"),
        ("n_gan_seeds", "GAN seed"),
        ("n_classifier_seeds", "classifier seed"),
    )
    given = [count(evidence[key], noun) for key, noun in nouns if evidence.get(key) is not None]
    basis = f"Based on {', '.join(given)}. " if given else ""
    margin = evidence.get("margin")
    return basis + (f"Margin fixed before the run: {100 * float(margin):.1f} points." if margin is not None else "")


def _lookup(part: str, decision: str, known: dict[str, tuple[str, str]]) -> tuple[str, str]:
    if decision not in known:
        raise UserError(
            f"verdict.json: {part}.decision is '{decision}'; known are {', '.join(known)}. Make the verdict again."
        )
    return known[decision]
