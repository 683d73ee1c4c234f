"""The arms of the comparison by name: what each is, what it needs, and what it must be compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass

REFERENCE_ARM = "real+classical"
PRETRAINED_ARM = "pretrained+classical"
_RATIO = re.compile(r"(?P<stem>.+)@(?P<ratio>\d+(\.\d+)?)")


@dataclass(frozen=True)
class ArmFacts:
    """Facts of an arm.

    Attributes:
        words: what the classifier learns from, for the report.
        generator: needs a trained GAN, so that it is made again for every GAN seed.
        pool: learns from the unlabelled images.
        ratio: its name ends in @RATIO, synthetic images for each real one in a batch.
        candidate: it may be said to help.
        controls: arms with the same information. Without one of them a candidate cannot be said to help, and it must
            beat each of them.
        also: further controls, which it must beat where they are among the arms.
        on_features: what its classifier learns from can be written down before the training, so that models on the
            features of images can learn it too.
    """

    words: str
    generator: bool = False
    pool: bool = False
    ratio: bool = False
    candidate: bool = False
    controls: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    on_features: bool = False


_OVERSAMPLING, _MIXUP = f"{REFERENCE_ARM}+oversampling", f"{REFERENCE_ARM}+mixup"
_PSEUDO_LABELS, _WEIGHTS = f"{REFERENCE_ARM}+pseudolabels", f"{REFERENCE_ARM}+classweights"
_ADJUSTED, _REFITTED = f"{REFERENCE_ARM}+logitadjustment", f"{REFERENCE_ARM}+refit"

ARMS: dict[str, ArmFacts] = {
    "real": ArmFacts("real images as they are", on_features=True),
    REFERENCE_ARM: ArmFacts("real images with classical augmentation", on_features=True),
    _OVERSAMPLING: ArmFacts(
        "real images, duplicated to take the synthetic ones' place in every batch", on_features=True
    ),
    _MIXUP: ArmFacts("mixtures of pairs of real images (mixup)"),
    _WEIGHTS: ArmFacts(
        "real images as frequent as they are, the rarer class weighing more in the loss", on_features=True
    ),
    _ADJUSTED: ArmFacts("real images as frequent as they are, logits adjusted for the frequencies"),
    _REFITTED: ArmFacts("real images as frequent as they are, the last layer fitted again on balanced batches"),
    _PSEUDO_LABELS: ArmFacts(
        "real images, and unlabelled ones labelled by an ensemble of classifiers", pool=True, on_features=True
    ),
    PRETRAINED_ARM: ArmFacts("real images with classical augmentation, on a network pre-trained on photographs"),
    "augmented-pretrained": ArmFacts("real images, first in a pre-training of equal length, then with a fresh head"),
    "random-features": ArmFacts("real images, on the frozen features of a trunk that was never trained"),
    "simclr-features": ArmFacts("real images, on the features of a trunk trained by contrast (SimCLR)", pool=True),
    "autoencoder-features": ArmFacts("real images, on the features of a denoising autoencoder's trunk", pool=True),
    f"{REFERENCE_ARM}+synthetic": ArmFacts(
        "real images, classical augmentation and synthetic images",
        generator=True, ratio=True, candidate=True, controls=(REFERENCE_ARM,),
        also=(_OVERSAMPLING, _MIXUP, PRETRAINED_ARM), on_features=True,
    ),
    f"{REFERENCE_ARM}+curated": ArmFacts(
        "real images, classical augmentation and those synthetic images that passed three filters",
        generator=True, ratio=True, candidate=True, controls=(REFERENCE_ARM,),
        also=(_OVERSAMPLING, _MIXUP, PRETRAINED_ARM), on_features=True,
    ),
    "synthetic+classical": ArmFacts(
        "synthetic images only, with classical augmentation; tested on real ones", generator=True, on_features=True
    ),
    "synthetic-pretrained": ArmFacts(
        "synthetic images first, then real ones with a fresh head",
        generator=True, candidate=True, controls=(REFERENCE_ARM, "augmented-pretrained"), also=(PRETRAINED_ARM,),
    ),
    "minority-synthetic": ArmFacts(
        "real images, the rare class filled up with synthetic ones, mixup, the last layer fitted again on real ones",
        generator=True, candidate=True,
        controls=(REFERENCE_ARM, _WEIGHTS, _OVERSAMPLING, _ADJUSTED, _REFITTED), also=(_MIXUP, PRETRAINED_ARM),
    ),
    "pool-gan": ArmFacts(
        "real images and those of a GAN that also saw the unlabelled ones, weighing less and less",
        generator=True, pool=True, candidate=True, controls=(REFERENCE_ARM, _PSEUDO_LABELS), also=(PRETRAINED_ARM,),
    ),
    "gan-features": ArmFacts(
        "real images, on the features of the GAN's discriminator",
        generator=True, pool=True, candidate=True,
        controls=(REFERENCE_ARM, "simclr-features", "random-features"), also=("autoencoder-features", PRETRAINED_ARM),
    ),
}  # fmt: skip
"""Names without @RATIO, in the order of a report."""


def arm_facts(name: str) -> ArmFacts | None:
    """Facts of the arm called `name`, such as `real+classical+synthetic@1`; None where there is no such arm."""
    match = _RATIO.fullmatch(name)
    facts = ARMS.get(match["stem"] if match else name)
    return facts if facts is not None and facts.ratio == (match is not None) else None


def arm_ratio(name: str) -> float:
    """Synthetic images for each real one in a batch, as the name says; 0 where it says nothing."""
    match = _RATIO.fullmatch(name)
    return float(match["ratio"]) if match else 0.0


def uses_synthetic(name: str) -> bool:
    """True for arms that need a trained GAN."""
    facts = arm_facts(name)
    return facts is not None and facts.generator


def is_candidate(name: str) -> bool:
    """True for arms that may be said to help."""
    facts = arm_facts(name)
    return facts is not None and facts.candidate
