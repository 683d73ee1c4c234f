"""Is the nearest synthetic image as near as where shadow generators knew the patient, or as where they did not?"""

from __future__ import annotations

import numpy as np

from pipeline.core.layout import SHADOW_MEMBERS
from pipeline.data.batches.dataset import open_dataset, read_table
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target
from pipeline.privacy.attacks.distance import scores as distance_scores
from pipeline.privacy.shadows import GAN, IMAGES

_LEAST_GAP = 0.1


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """The likelihood ratio of the registered distance to the nearest synthetic image, [N].

    The shadows' images are as many as those of the generator that is attacked, since the nearest of more is nearer.
    """
    asked = candidates.images
    ids = asked.dataset.manifest["image_id"].iloc[asked.rows]
    size = min(len(target.synthetic), *(len(one) for one in _shadows(target)))
    known, near = [], []
    for number, images in enumerate(_shadows(target)):
        members = read_table(target.inputs[GAN.format(number)] / SHADOW_MEMBERS)["image_id"]
        known.append(ids.isin(members).to_numpy())
        near.append(distance_scores(_looking_at(target, images, size), candidates))
    own = distance_scores(_looking_at(target, target.synthetic, size), candidates)
    return likelihood_ratio(own, np.stack(near), np.stack(known))


def likelihood_ratio(own: np.ndarray, shadow: np.ndarray, known: np.ndarray) -> np.ndarray:
    """log N(own; in, s) - log N(own; out, s) for each image, [N].

    `in` and `out` are the means over the shadows that knew the image's patient and over those that did not, and s is
    the spread of all around these (few shadows cannot tell each image's own). Since these means are of few shadows too,
    their gap is drawn towards the mean gap over all images by as much as it scatters by chance (empirical Bayes), and
    is at least a tenth of s: nobody's own shadow makes an image look less like a member.

    Args:
        own: [N] statistic of the generator that is attacked, large = near.
        shadow: [K, N] the same of each shadow.
        known: [K, N] bool, whether the shadow knew the patient; each image is known to some and not to others.
    """
    inside, outside = ((shadow * side).sum(axis=0) / side.sum(axis=0) for side in (known, ~known))
    apart = shadow - np.where(known, inside, outside)
    variance = max(float((apart**2).sum()) / (apart.size - 2 * apart.shape[1]), 1e-12)
    gap = inside - outside
    chance = variance * float((1 / known.sum(axis=0) + 1 / (~known).sum(axis=0)).mean())
    kept = max(float(gap.var()) - chance, 0.0) / max(float(gap.var()), 1e-12)
    gap = np.maximum(gap.mean() + kept * (gap - gap.mean()), _LEAST_GAP * variance**0.5)
    return np.asarray((own - (inside + outside) / 2) * gap / variance)


def _shadows(target: Target) -> list[Images]:
    found: list[Images] = []
    while (name := IMAGES.format(len(found))) in target.inputs:
        dataset = open_dataset(target.inputs[name])
        found.append(Images(dataset, np.random.default_rng(target.seed).permutation(len(dataset.images))))
    return found


def _looking_at(target: Target, images: Images, size: int) -> Target:
    """The same attacker, shown so many images."""
    some = Images(images.dataset, images.rows[:size], images.change, images.seed)
    return Target(some, target.config, target.hardware, target.seed)


ATTACK = AttackFacts(
    "Carlini et al., Membership Inference Attacks From First Principles, IEEE S&P 2022, on the distances of GAN-Leaks",
    scores,
    note="Trains privacy.shadows generators; one spread for all images, and gaps drawn to their mean.",
)  # fmt: skip
