"""Arms with synthetic images or on a GAN's features: those whose use is in question.

docs/add-an-arm.md adds an entry.
"""

from __future__ import annotations

from pipeline.config.arm_facts import PRETRAINED_ARM, REFERENCE_ARM, ArmFacts, Part, Stretch
from pipeline.config.real_arms import (
    ACROSS_SITES,
    ADJUSTED,
    AGREEMENT,
    AMPLITUDES,
    BIGAUG,
    CELLS,
    CELLS_TWICE,
    DANN,
    EQUALISED,
    FADING_FIXMATCH,
    FADING_PSEUDO_LABELS,
    FIXMATCH,
    MIXUP,
    NATURAL,
    ON_THE_POOL,
    OVERSAMPLING,
    PSEUDO_LABELS,
    REAL,
    REFIT,
    REFITTED,
    UNLABELLED,
    WEIGHTS,
    WITHOUT_A_GAN,
)

_SYNTHETIC, _JUDGED_FADING = Part("synthetic"), Part("judged_synthetic", "pool_ratio", fades=True)
_BETWEEN_SCANNERS = (ACROSS_SITES, BIGAUG, AMPLITUDES)
"""What mends a shortcut without a GAN where two scanners differ in sharpness and intensities, and did as well as
translators there."""
_OTHER_REMEDIES = tuple(arm for arm in WITHOUT_A_GAN if arm not in (CELLS, *_BETWEEN_SCANNERS))
_BUT_BIGAUG = tuple(arm for arm in WITHOUT_A_GAN if arm != BIGAUG)
_OF_THE_POOL = ("simclr-features", "autoencoder-features", PRETRAINED_ARM, *WITHOUT_A_GAN)
_ALSO_WHERE_LABELS_LACK = (CELLS, EQUALISED, DANN, BIGAUG)
"""Remedies that need no class with labels at two sites."""

SYNTHETIC_ARMS: dict[str, ArmFacts] = {
    f"{REFERENCE_ARM}+synthetic": ArmFacts(
        "real images, classical augmentation and synthetic images",
        (Stretch((REAL, Part("synthetic", "@ratio"))),),
        controls=(REFERENCE_ARM,), also=(OVERSAMPLING, MIXUP, PRETRAINED_ARM, *WITHOUT_A_GAN),
    ),
    f"{REFERENCE_ARM}+curated": ArmFacts(
        "real images, classical augmentation and those synthetic images that passed three filters",
        (Stretch((REAL, Part("curated", "@ratio"))),),
        controls=(REFERENCE_ARM,), also=(OVERSAMPLING, MIXUP, PRETRAINED_ARM, *WITHOUT_A_GAN),
    ),
    "synthetic+classical": ArmFacts(
        "synthetic images only, with classical augmentation; tested on real ones", (Stretch((_SYNTHETIC,)),)
    ),
    "synthetic-pretrained": ArmFacts(
        "synthetic images first, then real ones with a fresh head",
        (Stretch((_SYNTHETIC,)), Stretch(head="fresh")),
        controls=(REFERENCE_ARM, "augmented-pretrained"), also=(PRETRAINED_ARM, *WITHOUT_A_GAN),
    ),
    # Qraitem et al., "From Fake to Real", ECCV 2024: real and synthetic images never share a batch, so that "is
    # synthetic" cannot become the label.
    "cells-synthetic-pretrained": ArmFacts(
        "synthetic images of every cell of site and class first, then real ones, cells balanced, with a fresh head",
        (Stretch((Part("synthetic_cells"),)), Stretch((Part("cells"),), head="fresh")),
        controls=(REFERENCE_ARM, CELLS, "cells-pretrained", *_BETWEEN_SCANNERS),
        also=(*_OTHER_REMEDIES, PRETRAINED_ARM),
    ),
    # Goel et al., "Model Patching: Closing the Subgroup Performance Gap with Data Augmentation" (CAMEL), ICLR 2021: a
    # translation within the class gets no label of its own; the classifier shall only not mind the site.
    "translated-consistency": ArmFacts(
        "real images, cells of site and class equally often, with equal answers asked for on an image and on its "
        "translation to the other site",
        (Stretch((Part("cells_translated"),), agreement=AGREEMENT),),
        controls=(REFERENCE_ARM, CELLS, CELLS_TWICE, *_BETWEEN_SCANNERS),
        also=(*_OTHER_REMEDIES, "cells-pretrained", PRETRAINED_ARM, PSEUDO_LABELS, *ON_THE_POOL),
        translator=True,
    ),
    # LISA (Yao et al., ICML 2022) among translations too: a mixture of two sites tells neither the site nor what is
    # synthetic, and the rare cells have all of the other site's anatomy in place of a few images.
    "translated-crosssitemixup": ArmFacts(
        "real images and translations to every cell of site and class, cells balanced, mixed in pairs of one class and "
        "different sites",
        (Stretch((Part("cells"), Part("synthetic_cells")), mixup="across_sites"),),
        controls=(REFERENCE_ARM, CELLS, *_BETWEEN_SCANNERS),
        also=(*_OTHER_REMEDIES, CELLS_TWICE, "cells-pretrained", PRETRAINED_ARM, PSEUDO_LABELS, *ON_THE_POOL),
        translator=True,
    ),
    # `cells-synthetic-pretrained` on a translator's images.
    "translated-pretrained": ArmFacts(
        "translations to every cell of site and class first, then real images, cells balanced, with a fresh head",
        (Stretch((Part("synthetic_cells"),)), Stretch((Part("cells"),), head="fresh")),
        controls=(REFERENCE_ARM, CELLS, "cells-pretrained", *_BETWEEN_SCANNERS),
        also=(*_OTHER_REMEDIES, PRETRAINED_ARM, PSEUDO_LABELS, *ON_THE_POOL),
        translator=True,
    ),
    # Hoffman et al., "CyCADA", ICML 2018; Chen et al., "TUNA-Net", MICCAI 2019: labelled images as the unlabelled site
    # would have taken them, and no others.
    "adapted": ArmFacts(
        "translations of the labelled images to the unlabelled site, with the labels of their sources",
        (Stretch((Part("as_target"),)),),
        controls=(REFERENCE_ARM, PSEUDO_LABELS, BIGAUG), also=(*_BUT_BIGAUG, *ON_THE_POOL, PRETRAINED_ARM),
        translator=True,
    ),
    # Lee, "Pseudo-Label", ICML workshop 2013, of an ensemble that learnt what the site looks like.
    "adapted-pseudolabels": ArmFacts(
        "translations of the labelled images to the unlabelled site, and that site's images labelled by an ensemble "
        "that learnt from these translations",
        (Stretch((Part("as_target"), Part("target_judged"))),),
        controls=(REFERENCE_ARM, PSEUDO_LABELS, BIGAUG), also=(*_BUT_BIGAUG, *ON_THE_POOL, PRETRAINED_ARM),
        translator=True,
    ),
    # Everything through the translator, test images too, so that what it does to images tells no site.
    "harmonised": ArmFacts(
        "real images as the translator shows them at one site, in training, validation and test alike, cells balanced",
        (Stretch((Part("cells"),)),), look="harmonised",
        controls=(REFERENCE_ARM, *_ALSO_WHERE_LABELS_LACK),
        also=(*(arm for arm in WITHOUT_A_GAN if arm not in _ALSO_WHERE_LABELS_LACK), PSEUDO_LABELS, PRETRAINED_ARM),
        translator=True,
    ),
    # The trap: most images of a rare cell are then synthetic, and "is synthetic" becomes the label.
    "minority-translated": ArmFacts(
        "real images as frequent as they are, the rare cells of site and class filled up with translations",
        (Stretch((NATURAL, Part("rare_cells"))),),
        controls=(REFERENCE_ARM, CELLS, *_BETWEEN_SCANNERS),
        also=(*_OTHER_REMEDIES, "cells-pretrained", PRETRAINED_ARM),
        translator=True,
    ),
    "minority-synthetic": ArmFacts(
        "real images, the rare class filled up with synthetic ones, mixup, the last layer fitted again on real ones",
        (Stretch((NATURAL, Part("minority")), steps="rest", mixup=True), REFIT),
        controls=(REFERENCE_ARM, WEIGHTS, OVERSAMPLING, ADJUSTED, REFITTED),
        also=(MIXUP, PRETRAINED_ARM, *WITHOUT_A_GAN),
    ),
    # The class that the GAN was asked for is not trusted: an ensemble says what its images show.
    "pool-gan": ArmFacts(
        "real images and those of a GAN that also saw the unlabelled ones, weighing less and less",
        (Stretch((REAL, _JUDGED_FADING)),),
        controls=(REFERENCE_ARM, PSEUDO_LABELS, FADING_PSEUDO_LABELS, FIXMATCH), also=(FADING_FIXMATCH, *_OF_THE_POOL),
        pool_gan=True,
    ),
    # Two ways of learning from the same archive at once.
    "pool-gan+fixmatch": ArmFacts(
        "real images, those of a GAN that also saw the unlabelled ones, weighing less and less, and unlabelled ones by "
        "the classifier's own sure answers (FixMatch)",
        (Stretch((REAL, _JUDGED_FADING, UNLABELLED), fixmatch=True),),
        controls=(REFERENCE_ARM, PSEUDO_LABELS, FADING_PSEUDO_LABELS, FIXMATCH, FADING_FIXMATCH), also=_OF_THE_POOL,
        pool_gan=True,
    ),
    "gan-features": ArmFacts(
        "real images, on the features of the GAN's discriminator", trunk="gan",
        controls=(REFERENCE_ARM, "simclr-features", "random-features"),
        also=(FIXMATCH, "autoencoder-features", PRETRAINED_ARM, *WITHOUT_A_GAN), pool_gan=True,
    ),
}  # fmt: skip
"""Names without @RATIO, in the order of a report."""
