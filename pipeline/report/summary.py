"""`summary.html`: the result on one page, in words that need no statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.core.layout import REPORT, SHAREABLE_REPORT
from pipeline.report.picture import Picture
from pipeline.report.reading import Run
from pipeline.report.sharing import Redaction
from pipeline.report.words import (
    arm_title,
    confidence,
    count,
    metric_name,
    patients_needed_words,
    release_statement,
    utility_statement,
)

_OF_A_HUNDRED = {
    "auroc": "Shown one image with the disease and one without, the classifier ranks the right one higher in",
    "sensitivity": "Of 100 images with the disease, the classifier finds",
    "specificity": "Of 100 images without the disease, the classifier calls so",
}
_LEAVES = {
    "release": (
        "Every attack that was tried told the generator's training patients from unseen ones no better than is "
        "tolerated, and no near copies were found beyond what unseen patients have.",
        "That is evidence, not proof: no audit shows that nobody can be recognised.",
    ),
    "refuse": ("The privacy audit found that the images tell, or may tell, who was in training.",),
    "not_audited": (
        "The privacy audit cannot clear them: it was not made, or had too few patients to rule a leak out.",
    ),
}
"""What each release decision means."""


def summary_parts(
    run: Run, about: str, pictures: Mapping[str, Picture], redact: Redaction, *, shareable: bool
) -> dict[str, Any]:
    """What the template `summary.html.j2` is filled with.

    Args:
        about: the data in one line.
        redact: takes out what may name a patient; the page shows no image but the drawn difference.
    """
    evidence = dict(run.verdict["utility"]["evidence"])
    decision = str(run.verdict["release"]["decision"])
    looks = run.verdict["looks"]["sentences"] if "looks" in run.verdict else []
    return {
        "name": run.experiment.name,
        "about": about,
        "first": _first(run, shareable=shareable),
        "cautions": [redact(sentence) for sentence in looks] + _cautions(run),
        "question": _question(evidence),
        "utility": utility_statement(run.verdict["utility"]),
        "answer": _answer(evidence),
        "sure": _sure(evidence),
        "picture": pictures.get("difference"),
        "patients": _patients(run, evidence),
        "release": release_statement(run.verdict["release"]),
        "leaves": _LEAVES[decision],
        "not_said": _not_said(run),
        "needed": _needed(run, evidence),
        "report": SHAREABLE_REPORT if shareable else REPORT,
    }


def _first(run: Run, *, shareable: bool) -> str:
    if shareable:
        return "No image of a patient and no id. Share these numbers as your institution shares such numbers."
    if run.experiment.data.simulated:
        return "As confidential as its source, which is simulated: phantoms, not patients."
    return "Confidential, as its source is."


def _cautions(run: Run) -> list[str]:
    said = []
    if run.missing_patients:
        said.append(
            f"{count(run.missing_patients, 'image')} have no patient id: the same patient may be in training and "
            "test, and the result may be too good."
        )
    if run.experiment.data.simulated:
        said.append("The images are simulated. Nothing learned from them holds for patients.")
    return said


def _question(evidence: Mapping[str, Any]) -> str:
    question = "Does a classifier get better at finding the disease when it also learns from computer-made images?"
    if "arm" not in evidence:
        return question
    sides = (arm_title(str(evidence[side])) for side in ("reference", "arm"))
    reference, arm = (f"“{side}”" for side in sides)
    return (
        f"{question} The same classifier was trained twice, on {reference} and on {arm}, and tested on other patients."
    )


def _answer(evidence: Mapping[str, Any]) -> list[str]:
    means = [evidence.get(side) for side in ("reference_mean", "arm_mean")]
    if None in means:
        return ["No arm used synthetic images beside real ones, or the two could not be compared."]
    endpoint = str(evidence["endpoint"])
    before, after = (100 * float(mean) for mean in means if mean is not None)
    if endpoint in _OF_A_HUNDRED:
        of = " of 100 such pairs" if endpoint == "auroc" else ""
        said = f"{_OF_A_HUNDRED[endpoint]} {before:.0f}{of} with real images alone"
    else:
        said = f"{metric_name(endpoint)}: {before:.0f} of 100 with real images alone"
    return [f"{said}, and {after:.0f} with synthetic ones too.", *_of_the_generator(evidence)]


def _of_the_generator(evidence: Mapping[str, Any]) -> list[str]:
    state = str(dict(evidence.get("generators") or {}).get("state"))
    if state == "failed":
        return ["The generator did not work: its images are not like real ones. This says nothing about better images."]
    if state == "not judged":
        return ["There were too few images to judge whether the generator worked."]
    return []


def _sure(evidence: Mapping[str, Any]) -> list[str]:
    low, high = evidence.get("ci_low"), evidence.get("ci_high")
    if low is None or high is None:
        return ["Nobody can say: there are too few patients or trainings for an interval."]
    margin = 100 * float(evidence["margin"])
    said = [
        f"The true difference may lie anywhere from {_change(low)} to {_change(high)} ({confidence(evidence)} "
        f"interval). Before the run it was fixed that a gain below {margin:.1f} points would not matter.",
    ]
    if evidence.get("n_gan_seeds") == 1:
        said.append("The generator was trained from one random start: another one may do better or worse.")
    return said


def _change(difference: float) -> str:
    points = 100 * difference
    return f"{abs(points):.1f} points {'better' if points > 0 else 'worse'}"


def _patients(run: Run, evidence: Mapping[str, Any]) -> str:
    split = run.splits
    trained = int(split.loc[(split["fold"] == split["fold"].min()) & (split["split"] == "train"), "image_id"].nunique())
    learned = f"The classifier learned from {count(trained, 'real image')}"
    if "n_patients" not in evidence:
        return f"{learned}; nothing was compared."
    who = "images, since patients are not all known" if run.missing_patients else "patients"
    divided = " in each division" if evidence["n_folds"] > 1 else ""
    return (
        f"{learned}{divided}, and was tested on {evidence['n_patients']} {who} "
        f"({count(evidence['n_images'], 'image')}), whom neither the classifier nor the generator had seen."
    )


def _not_said(run: Run) -> list[str]:
    said = [
        "That the classifier is good enough for patients: it is a yardstick for images, no medical device.",
        "That the result holds elsewhere: another hospital, scanner, disease or classifier may answer otherwise.",
    ]
    if run.verdict["utility"]["decision"] in ("inconclusive", "no_benefit"):
        said.append("That synthetic images never help: another generator, or fewer real images, may change it.")
    if not (run.metrics["split"] == "external").any():
        said.append("Anything about patients of another source: none were tested.")
    return said


def _needed(run: Run, evidence: Mapping[str, Any]) -> list[str]:
    said = []
    decision = run.verdict["utility"]["decision"]
    if dict(evidence.get("generators") or {}).get("state") == "failed":
        said.append("First a generator that works: more real images, longer training or another family.")
    needed = patients_needed_words(evidence)
    if needed and decision == "inconclusive":
        said.append(f"To be sure: {needed}.")
    if decision in ("helps", "harms"):
        said.append("A second look on patients of another hospital, who took no part in any choice.")
    if run.verdict["release"]["decision"] != "release":
        said.append("For release: an audit that passes. Until then neither images nor generator may be given away.")
    return said or ["Nothing more for this question on these patients."]
