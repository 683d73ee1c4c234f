"""The release verdict: may the images of the ONE generator that `release:` names leave the building?

Each attack's AUROC less its control has an interval; what is tolerated must lie above it. docs/privacy.md reasons the
rule and has its error rates on planted leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import ndtr, ndtri

from pipeline.config.experiment import ReleaseConfig
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.decisions import Decision
from pipeline.core.records import Record
from pipeline.measures.near_copies import NEAR, chance_of_near
from pipeline.privacy.outcome import Outcome, Rate

RELEASE, REFUSE, NOT_AUDITED = "release", "refuse", "not_audited"
_SAME = ("prepare", "split", "synthesise")
_POWER = 0.8
EXCLUDES = 0.05
"""Chance of excluding a leak of the tolerated size wrongly, and of believing wrongly that the planted one is seen."""


def tolerated_auroc(advantage: float) -> float:
    """The AUROC above chance at which the membership advantage is `advantage`, for normal scores of equal spread.

    The largest TPR - FPR of normal scores whose means are d apart is 2 Φ(d / 2) - 1, and their AUROC Φ(d / √2).
    """
    return float(ndtr(2**0.5 * ndtri((1 + advantage) / 2))) - 0.5


def as_advantage(auroc: float) -> float:
    """The other way: the membership advantage of an AUROC that is so much above chance."""
    return float(2 * ndtr(ndtri(min(max(auroc, 0.0) + 0.5, 1.0)) / 2**0.5) - 1)


@dataclass
class _Findings:
    """What was found, in sentences: leaks that are shown, what the audit cannot exclude, what it lacks.

    Attacks that clear, by name, and those that do not see a planted leak.
    """

    refused: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    clears: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def release_verdict(records: Sequence[Record], place: ReleaseConfig, privacy: PrivacyConfig) -> Decision:
    """Decide by the records of the stages `attack` and `privacy`, and of `fit-gan` where it is given too.

    `refuse` where a leak is shown: a synthetic image is a copy of a training image; or more training patients have near
    copies than unseen ones, beyond chance; or training patients stand out from all unseen ones; or an attack's interval
    lies above 0 and reaches what is not tolerated; or the figures are not of these weights. `not_audited` where the run
    lacks what the audit needs, unseen patients enough to exclude what is not tolerated among it. Else `release`.
    """
    own = [one for one in records if (one.fold, one.gan_seed) == (place.fold, place.gan_seed)]
    made = {one.variant: one for one in own if one.kind == "attack"}
    attacks = {name: made[name] for name in privacy.attacks if name in made}
    looks = [one for one in own if one.kind == "privacy"]
    found = _Findings()
    missing = [name for name in privacy.attacks if name not in attacks]
    if not privacy.attacks:
        found.lacking.append("No attack is named in privacy.attacks.")
    elif missing:
        found.lacking.append(f"These attacks were not made: {', '.join(missing)}. Do `radaug run` again.")
    if not looks:
        found.lacking.append("The generator's images were not compared with its training images.")
    _judge_provenance(found, [*attacks.values(), *looks], [one for one in own if one.kind == "fit-gan"])
    gating = {name: one for name, one in attacks.items() if one.extra["gates"]}
    if attacks and not gating:
        found.lacking.append("All attacks are for information only. Name one that has a say in privacy.attacks.")
    tests = _number_of_tests(gating)
    for one in looks[:1]:
        _judge_copies(found, one, privacy.alpha / tests)
    _judge_attacks(found, gating, privacy, tests)
    return _decision(found, place, privacy, [*attacks.values(), *looks])


def _judge_provenance(found: _Findings, audits: Sequence[Record], gans: Sequence[Record]) -> None:
    """All figures must be of one generator, its images and its patients, by the digests of what they were made from."""
    if any(len({one.inputs.get(name) for one in audits}) > 1 for name in _SAME):
        found.refused.append("The parts of the audit are not of the same images: audit the run again.")
    if len({one.extra["weights"] for one in audits if "weights" in one.extra}) > 1:
        found.refused.append("The parts of the audit are not of the same weights: audit the run again.")
    for gan in gans:
        for one in audits:
            if one.kind == "attack" and one.inputs.get("fit-gan") != gan.digest:
                found.refused.append(
                    f"The attack {one.variant} is of other weights than the generator has now, or older than these."
                )
            if any(one.inputs.get(name) != gan.inputs.get(name) for name in ("prepare", "split")):
                found.refused.append("The audit took other patients for members than the generator learned from.")


def _judge_copies(found: _Findings, look: Record, alpha: float) -> None:
    """One copy is enough; near copies are too many where training patients have more of them than unseen ones have."""
    figures = look.figures
    found.figures["memorisation"] = figures
    if "copies" not in figures:
        found.lacking.append("Near copies were judged by an older rule. Do `radaug run` again.")
        return
    if figures["copies"]:
        found.refused.append(
            f"{int(figures['copies'])} of {int(figures['synthetic_images'])} synthetic images are copies of a training "
            f"image: within {NEAR:g} of the distance that unseen real images keep, and nearer than half of what any "
            "image comes to an unseen patient."
        )
    (near, members), (other, unseen) = (
        (int(figures[name]), int(figures[f"{name}_of"])) for name in ("near_patients", "near_unseen")
    )
    chance = chance_of_near((near, members), (other, unseen))
    if chance < alpha:
        found.refused.append(
            f"Synthetic images are near copies of {near} of {members} training patients' images, and as near to "
            f"{other} of {unseen} unseen patients' (chance {chance:.2g})."
        )


def _outcomes(attacks: dict[str, Record]) -> dict[str, Outcome]:
    return {name: Outcome.from_json(one.extra["outcome"]) for name, one in attacks.items() if not one.extra["lacking"]}


def _number_of_tests(attacks: dict[str, Record]) -> int:
    """That share `alpha`: of every attack the AUROCs and who stands out, and patients with near copies."""
    return 1 + sum(len(_judged_rates(one)) + 1 for one in _outcomes(attacks).values())


def _judge_attacks(found: _Findings, attacks: dict[str, Record], privacy: PrivacyConfig, tests: int) -> None:
    outcomes = _outcomes(attacks)
    for why in dict.fromkeys(one.extra["lacking"] for one in attacks.values() if one.extra["lacking"]):
        found.lacking.append(why)
    limit = tolerated_auroc(privacy.advantage)
    for name, outcome in outcomes.items():
        planted = attacks[name].extra["planted"]
        blind = planted is not None and Rate(**planted).interval(2 * EXCLUDES)[0] <= limit
        clears = planted is not None and not blind
        (found.clears if clears else found.blind if blind else []).append(name)
        _judge_one(found, name, outcome, limit, privacy.alpha, tests, clears=clears)
        found.figures[name] = _evidence(outcome, planted, blind)
    if outcomes and not found.clears:
        found.lacking.append(
            "No attack that was made would see a generator that replays its training images: they are blind on these "
            "images, and clear nobody."
        )
    found.figures["smallest"] = _smallest(outcomes, privacy, tests)


def _judged_rates(outcome: Outcome) -> list[Rate]:
    """The AUROC by image and by patient; once where each patient has one image."""
    return [rate for rate in outcome.rates if rate.name == "auroc"]


def _judge_one(
    found: _Findings, name: str, outcome: Outcome, limit: float, alpha: float, tests: int, *, clears: bool
) -> None:
    if outcome.standing_out_p < alpha / tests:
        found.refused.append(
            f"By the attack {name}, {outcome.standing_out} of {outcome.patients[0]} training patients stand out from "
            f"all {outcome.patients[1]} unseen ones (chance {outcome.standing_out_p:.2g})."
        )
    for rate in _judged_rates(outcome):
        shown, most = rate.interval(2 * alpha / tests)[0], rate.interval(2 * EXCLUDES)[1]
        told = (
            f"By the attack {name}, {rate.unit} by {rate.unit}, members and unseen ones are told apart with AUROC "
            f"{rate.value:.3f} (members among themselves {rate.control:.3f}); the difference is at most {most:+.3f}, "
            f"and below {limit:+.3f} is tolerated"
        )
        if most < limit:
            continue
        if shown > 0:
            found.refused.append(f"{told}. It is not chance.")
        elif clears:
            found.weak.append(f"{name}, by {rate.unit}: {rate.value:.3f} ({rate.control:.3f}), at most {most:+.3f}")


def _smallest(outcomes: dict[str, Outcome], privacy: PrivacyConfig, tests: int) -> dict[str, Any]:
    """The smallest leak that this audit shows in four of five runs: of all patients alike, and of some alone."""
    rates = [outcome.rate("auroc", "patient") for outcome in outcomes.values()]
    if not rates:
        return {}
    size = next(iter(outcomes.values())).patients
    error = max(one.error for one in rates) or max((sum(1 / number for number in size) / 12) ** 0.5, 0.0)
    auroc = float(ndtri(1 - privacy.alpha / tests) + ndtri(_POWER)) * error
    chance, patients = 1.0, 0
    while chance >= privacy.alpha / tests and patients < size[0]:
        chance *= (size[0] - patients) / (sum(size) - patients)  # C(m, k) / C(m + n, k)
        patients += 1
    return {"auroc_difference": auroc, "advantage": as_advantage(auroc), "patients": patients, "of": list(size)}


def _evidence(outcome: Outcome, planted: dict[str, Any] | None, blind: bool) -> dict[str, Any]:
    return outcome.as_json() | {"planted": planted, "blind": blind}


def _weak_words(found: _Findings, privacy: PrivacyConfig) -> list[str]:
    """What no attack excludes, in one sentence."""
    if not found.weak:
        return []
    return [
        "AUROC of telling members from unseen ones (members from members), and the most that the difference may be: "
        f"{'; '.join(found.weak)}. Below {tolerated_auroc(privacy.advantage):+.3f} is tolerated; this is chance, or a "
        "leak that so few patients cannot show."
    ]


def _decision(found: _Findings, place: ReleaseConfig, privacy: PrivacyConfig, audits: Sequence[Record]) -> Decision:
    weights = sorted({str(one.extra["weights"]) for one in audits if "weights" in one.extra})
    certificate = next((one.extra["certificate"] for one in audits if one.extra.get("certificate")), None)
    evidence = {
        "fold": place.fold, "gan_seed": place.gan_seed, "weights": weights[0] if weights else "",
        "tolerated_advantage": privacy.advantage, "tolerated_auroc_difference": tolerated_auroc(privacy.advantage),
        "alpha": privacy.alpha, "attacks": found.figures, "certificate": certificate,
    }  # fmt: skip
    power = _power_words(found.figures.get("smallest") or {}, privacy)
    if found.refused:
        return {"decision": REFUSE, "reasons": [*dict.fromkeys(found.refused)], "evidence": evidence}
    weak = _weak_words(found, privacy)
    if found.lacking:
        return {"decision": NOT_AUDITED, "reasons": [*found.lacking, *weak, *power], "evidence": evidence}
    if found.weak:
        said = "No leak was seen, but there are too few patients to exclude one that is not tolerated."
        return {"decision": NOT_AUDITED, "reasons": [said, *weak, *power], "evidence": evidence}
    said = (
        f"By {', '.join(found.clears)}, training patients are told from unseen ones hardly better than members from "
        f"members: a membership advantage of {privacy.advantage:g} is excluded. No synthetic image is a copy of a "
        "training image, and near copies are no more than chance."
    )
    told = f"{', '.join(found.blind)}: would not see a generator that replays its training images, and clears nobody."
    blind = [told] if found.blind else []
    limits = "This holds for these weights and these attacks, and is no proof against others."
    return {
        "decision": RELEASE,
        "reasons": [said, *_certified(certificate), *blind, *power, limits],
        "evidence": evidence,
    }


def _certified(certificate: dict[str, Any] | None) -> list[str]:
    if certificate is None:
        return []
    return [
        f"Its weights are differentially private besides: ε = {certificate['epsilon']:.2f} and "
        f"δ = {certificate['delta']:.1e} for each {certificate['unit']}, whatever the attack; the certificate says of "
        "what, and what is outside it."
    ]


def _power_words(smallest: dict[str, Any], privacy: PrivacyConfig) -> list[str]:
    if not smallest:
        return []
    members, unseen = smallest["of"]
    return [
        f"With {members} training and {unseen} unseen patients the audit shows, in four of five cases, an advantage of "
        f"{smallest['advantage']:.2f} over all patients, or {smallest['patients']} patients who stand out; less may be "
        "there unseen."
    ]
