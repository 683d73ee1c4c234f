"""Arms without a share of synthetic images: the controls, and what is learnt on fixed features.

docs/add-an-arm.md adds an entry.
"""

from __future__ import annotations

from pipeline.config.arm_facts import (
    PRETRAINED_ARM,
    REFERENCE_ARM,
    ArmFacts,
    LinearModel,
    Part,
    Representation,
    Stretch,
)

OVERSAMPLING, MIXUP = f"{REFERENCE_ARM}+oversampling", f"{REFERENCE_ARM}+mixup"
PSEUDO_LABELS, FIXMATCH = f"{REFERENCE_ARM}+pseudolabels", f"{REFERENCE_ARM}+fixmatch"
FADING_PSEUDO_LABELS = f"{REFERENCE_ARM}+fadingpseudolabels"
FADING_FIXMATCH = f"{FADING_PSEUDO_LABELS}+fixmatch"
WEIGHTS, ADJUSTED = f"{REFERENCE_ARM}+classweights", f"{REFERENCE_ARM}+logitadjustment"
REFITTED = f"{REFERENCE_ARM}+refit"
CELLS, GROUP_DRO = f"{REFERENCE_ARM}+cellbalanced", f"{REFERENCE_ARM}+groupdro"
CELLS_TWICE = "cells-consistency"
AGREEMENT = 1.0
"""Weight of equal answers beside the cross-entropy."""
STANDARDISED, EQUALISED = f"{REFERENCE_ARM}+standardised", f"{REFERENCE_ARM}+equalised"
SITE_CENTRED, ACROSS_SITES = f"{REFERENCE_ARM}+sitecentred", f"{REFERENCE_ARM}+crosssitemixup"
MATCHED, FOURIER, ADABN = f"{REFERENCE_ARM}+matched", f"{REFERENCE_ARM}+fourier", f"{REFERENCE_ARM}+adabn"
BIGAUG, BIGAUG_ACROSS = f"{REFERENCE_ARM}+bigaug", f"{REFERENCE_ARM}+bigaug+crosssitemixup"
AMPLITUDES = f"{REFERENCE_ARM}+amplitudemix"
CORAL, DANN = f"{REFERENCE_ARM}+coral", f"{REFERENCE_ARM}+dann"
WITHOUT_A_GAN = (
    CELLS, GROUP_DRO, BIGAUG, STANDARDISED, EQUALISED, SITE_CENTRED, ACROSS_SITES, BIGAUG_ACROSS, AMPLITUDES, MATCHED,
    FOURIER, ADABN, CORAL, DANN,
)  # fmt: skip
"""Plain remedies across sites: a GAN that gains less than these is not needed there."""
ON_THE_POOL = (FIXMATCH, "simclr-features", "autoencoder-features")
"""What learns from unlabelled images without a GAN, beside pseudo-labels."""
REAL, NATURAL = Part("real"), Part("natural")
UNLABELLED = Part("unlabelled", weight=7.0)
"""For FixMatch: the paper's seven unlabelled images for each labelled one."""
_CELLS = (Part("cells"),)
_WITH_TARGET = (Part("cells"), Part("target"))
REFIT = Stretch(steps="refit", head="alone")
"""The last layer alone, on balanced batches: classifier retraining, Kang et al., "Decoupling representation and
classifier", ICLR 2020."""

_REPRESENTED: dict[Representation, str] = {
    "vae": "the latent means of a variational autoencoder",
    "f-anogan": "the codes from which the GAN makes them again (f-AnoGAN)",
    "discriminator": "the features of all layers of the GAN's discriminator",
    "effnet": "the features of EfficientNet-Lite0, trained on photographs",
}
_BY: dict[LinearModel, str] = {"logistic": "logistic regression", "svm": "a linear support vector machine"}


def representation_arm(representation: Representation, model: LinearModel) -> str:
    """`REPRESENTATION-features+MODEL`."""
    return f"{representation}-features+{model}"


REAL_ARMS: dict[str, ArmFacts] = {
    "real": ArmFacts("real images as they are", (Stretch(classical=False),)),
    REFERENCE_ARM: ArmFacts("real images with classical augmentation"),
    # Half of every batch duplicates, where `synthetic@1` has synthetic images. The reference's batches are balanced
    # already, so this is nearly the reference again, in another order: an A/A control, which shows what chance does.
    OVERSAMPLING: ArmFacts(
        "real images, duplicated to take the synthetic ones' place in every batch", (Stretch((REAL, REAL)),)
    ),
    MIXUP: ArmFacts("mixtures of pairs of real images (mixup)", (Stretch(mixup=True),)),
    WEIGHTS: ArmFacts(
        "real images as frequent as they are, the rarer class weighing more in the loss",
        (Stretch((NATURAL,), loss="class_weights"),),
    ),
    # Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    ADJUSTED: ArmFacts(
        "real images as frequent as they are, logits adjusted for the frequencies",
        (Stretch((NATURAL,), loss="logit_adjustment"),),
    ),
    REFITTED: ArmFacts(
        "real images as frequent as they are, the last layer fitted again on balanced batches",
        (Stretch((NATURAL,), steps="rest"), REFIT),
    ),
    # Where the site tells the class, the classifier meets every cell of site and class equally often.
    CELLS: ArmFacts(
        "real images, every cell of site and class as often as the others", (Stretch((Part("cells"),)),)
    ),
    # Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020, algorithm 1.
    GROUP_DRO: ArmFacts(
        "real images, cells of site and class equally often, those with high losses weighing more (group DRO)",
        (Stretch((Part("cells"),), loss="group_dro"),),
    ),
    # Zhang et al., IEEE TMI 2020: what scanners do to sharpness and intensities, as augmentation.
    BIGAUG: ArmFacts(
        "real images, cells balanced, with stronger transforms of sharpness and intensities (after BigAug)",
        (Stretch(_CELLS, classical="appearance"),),
    ),
    # Histogram equalisation and per-image standardisation: what a site does to brightness and contrast goes.
    STANDARDISED: ArmFacts("real images, each less its mean and over its standard deviation", look="standardised"),
    EQUALISED: ArmFacts("real images, each with its histogram equalised", look="equalised"),
    SITE_CENTRED: ArmFacts(
        "real images less the mean image of their site, cells balanced", (Stretch(_CELLS),), look="site_centred"
    ),
    # Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022 (LISA, intra-label).
    ACROSS_SITES: ArmFacts(
        "mixtures of pairs of real images of one class and different sites, cells balanced",
        (Stretch(_CELLS, mixup="across_sites"),),
    ),
    BIGAUG_ACROSS: ArmFacts(
        "mixtures of pairs of real images of one class and different sites, cells balanced, with stronger transforms "
        "of sharpness and intensities (after BigAug)",
        (Stretch(_CELLS, classical="appearance", mixup="across_sites"),),
    ),
    # Xu et al., CVPR 2021 (FACT): what a scanner's linear filter does lies in the amplitudes.
    AMPLITUDES: ArmFacts(
        "real images with some of the Fourier amplitudes of images of another site, cells balanced",
        (Stretch(_CELLS, mixup="amplitudes"),),
    ),
    MATCHED: ArmFacts(
        "real images of other sites with the histogram of the unlabelled site, cells balanced",
        (Stretch(_CELLS),), look="matched",
    ),
    # Yang & Soatto, CVPR 2020.
    FOURIER: ArmFacts(
        "real images of other sites with coarse Fourier amplitudes of images of the unlabelled site, cells balanced",
        (Stretch(_CELLS),), look="fourier",
    ),
    # Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", ICLR workshop 2017.
    ADABN: ArmFacts(
        "real images, cells balanced; the unlabelled site goes through batch norms with its own statistics (AdaBN)",
        (Stretch(_CELLS),), target_norms=True,
    ),
    # Sun & Saenko, "Deep CORAL", ECCV workshop 2016; Ganin et al., JMLR 2016.
    CORAL: ArmFacts(
        "real images, cells balanced, features of all sites, unlabelled ones too, alike in covariance (deep CORAL)",
        (Stretch(_WITH_TARGET, align="coral"),),
    ),
    DANN: ArmFacts(
        "real images, cells balanced, on features that tell no site, unlabelled ones too, from another (DANN)",
        (Stretch(_WITH_TARGET, align="dann"),),
    ),
    # Lee, "Pseudo-Label", ICML workshop 2013, with soft labels: half of every batch is from the pool. The ensemble
    # knows the labelled training images only.
    PSEUDO_LABELS: ArmFacts(
        "real images, and unlabelled ones labelled by an ensemble of classifiers", (Stretch((REAL, Part("pool"))),)
    ),
    # `pool-gan` with the unlabelled images themselves in place of the synthetic ones: same ensemble, ratio and fading.
    FADING_PSEUDO_LABELS: ArmFacts(
        "real images, and unlabelled ones labelled by an ensemble of classifiers, as many as in pool-gan and weighing "
        "less and less",
        (Stretch((REAL, Part("pool", "pool_ratio", fades=True))),),
    ),
    # Sohn et al., NeurIPS 2020.
    FIXMATCH: ArmFacts(
        "real images, and unlabelled ones by the classifier's own sure answers, in two transformed copies (FixMatch)",
        (Stretch((REAL, UNLABELLED), fixmatch=True),),
    ),
    # `pool-gan+fixmatch` with the unlabelled images themselves in place of the synthetic ones.
    FADING_FIXMATCH: ArmFacts(
        "real images, unlabelled ones labelled by an ensemble of classifiers and weighing less and less, and by the "
        "classifier's own sure answers (FixMatch)",
        (Stretch((REAL, Part("pool", "pool_ratio", fades=True), UNLABELLED), fixmatch=True),),
    ),
    PRETRAINED_ARM: ArmFacts(
        "real images with classical augmentation, on a network pre-trained on photographs", imagenet=True
    ),
    "augmented-pretrained": ArmFacts(
        "real images, first in a pre-training of equal length, then with a fresh head",
        (Stretch(), Stretch(head="fresh")),
    ),
    "cells-pretrained": ArmFacts(
        "real images, cells balanced, first in a pre-training of equal length, then with a fresh head",
        (Stretch((Part("cells"),)), Stretch((Part("cells"),), head="fresh")),
    ),
    # As `translated-consistency`, without a translator: what asking for equal answers brings by itself.
    CELLS_TWICE: ArmFacts(
        "real images, cells balanced, with equal answers asked for on two transformed copies of an image",
        (Stretch((Part("cells_twice"),), agreement=AGREEMENT),),
    ),
    "random-features": ArmFacts(
        "real images, on the frozen features of a trunk that was never trained", trunk="random"
    ),
    "simclr-features": ArmFacts(
        "real images, on the features of a trunk trained by contrast (SimCLR)", trunk="simclr"
    ),
    "autoencoder-features": ArmFacts(
        "real images, on the features of a denoising autoencoder's trunk", trunk="autoencoder"
    ),
    **{
        representation_arm(representation, model): ArmFacts(
            f"real images, by {by} on {told}", representation=representation, model=model
        )
        for representation, told in _REPRESENTED.items()
        for model, by in _BY.items()
    },
}  # fmt: skip
"""Names in the order of a report."""
