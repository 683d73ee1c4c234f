"""How often would the gate release a generator that remembers nobody? Told from numbers of patients, before any run."""

from __future__ import annotations

from scipy.special import ndtr, stdtrit

from pipeline.config.privacy import PrivacyConfig
from pipeline.verdict.release import EXCLUDES, tolerated_auroc

GOAL = 0.95
_FOR_INFORMATION = ("discriminator",)


def released_share(members: int, unseen: int, attacks: int, advantage: float) -> float:
    """The share of generators without any memory that so many attacks clear, where each patient has one image.

    By chance an AUROC scatters with √((m + n + 1) / 12mn) around a half (Mann & Whitney 1947), and the upper end of
    its one-sided 95 % interval must lie below what is tolerated, for each attack. Attacks count as independent of each
    other, which they nearly are.
    """
    error = ((members + unseen + 1) / (12 * members * unseen)) ** 0.5
    reach = float(stdtrit(min(members, unseen) - 1, 1 - EXCLUDES)) * error
    return float(ndtr((tolerated_auroc(advantage) - reach) / error)) ** attacks


def patients_needed(attacks: int, advantage: float) -> int:
    """The fewest patients on either side with which `GOAL` of the generators without memory are released."""
    most = 4
    while released_share(most, most, attacks, advantage) < GOAL:
        most *= 2
    return next(n for n in range(most // 2, most + 1) if released_share(n, n, attacks, advantage) >= GOAL)


def release_outlook(privacy: PrivacyConfig, members: int, unseen: int) -> str:
    """What `radaug validate` says of the release, in a sentence.

    Args:
        members: training patients of the generator that may be released; `unseen`: those whom it never sees.
    """
    attacks = len(set(privacy.attacks) - set(_FOR_INFORMATION))
    if not attacks:
        return "Release: no attack is named in privacy.attacks that has a say, so that nothing will be released."
    sides = f"{members} training and {unseen} unseen patients"
    if min(members, unseen) < privacy.fewest:
        return f"Release: {sides}, and an audit needs {privacy.fewest} of either: nothing will be released."
    share = 100 * released_share(members, unseen, attacks, privacy.advantage)
    needed = patients_needed(attacks, privacy.advantage)
    goal = "" if share >= 100 * GOAL else f"; {100 * GOAL:.0f} of 100 need about {needed} of either"
    return f"Release: with {sides}, about {share:.0f} of 100 generators that remember nobody may go{goal}."
