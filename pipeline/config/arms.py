"""The arms of the comparison by name: what each is, how it is trained, and what it must be compared with.

An arm is one entry of `ARMS`. Its regimen, its cost, what is looked at beside its predictions and the table of
docs/arms.md follow from it; docs/add-an-arm.md adds one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config.by_name import nearest
from pipeline.core.errors import ConfigError

REFERENCE_ARM = "real+classical"
PRETRAINED_ARM = "pretrained+classical"
_RATIO = re.compile(r"(?P<stem>.+)@(?P<ratio>\d+(\.\d+)?)")

Images = Literal[
    "real", "natural", "cells", "pool", "synthetic", "synthetic_cells", "judged_synthetic", "minority", "curated"
]
"""What a batch can be mixed from, as `downstream.material.Material` hands it out.

`real`: the labelled training images, class-balanced; `natural`: as frequent as they are; `cells`: every cell of site
and class as frequent as the others; `pool`: the unlabelled ones under an ensemble's labels; `synthetic`: class-balanced
under the classes that were asked for; `synthetic_cells`: every cell that was asked for as frequent as the others;
`judged_synthetic`: under an ensemble's labels; `minority`: synthetic ones of the rarer classes, up to balance;
`curated`: those that passed three filters, one of which is an ensemble.
"""
Loss = Literal["plain", "class_weights", "logit_adjustment", "group_dro"]
Trunk = Literal["gan", "random", "simclr", "autoencoder"]
Representation = Literal["vae", "f-anogan", "discriminator", "effnet"]
LinearModel = Literal["logistic", "svm"]
_SYNTHETIC = {"synthetic", "synthetic_cells", "judged_synthetic", "minority", "curated"}
_BY_AN_ENSEMBLE = {"pool", "judged_synthetic", "curated"}
_TRUNKS_OF_THE_POOL = {"simclr", "autoencoder"}
_REPRESENTATIONS_OF_THE_GAN = {"f-anogan", "discriminator"}


@dataclass(frozen=True)
class Part:
    """A part of every batch.

    Attributes:
        weight: images for each one of a part of weight 1, as a number, as the arm's name says (`@ratio`) or as
            `classifier.pool_ratio` says; None: as many as `images` says of itself, which is 1 for most.
        fades: its weight in the loss falls from 1 to 0.
    """

    images: Images
    weight: float | Literal["@ratio", "pool_ratio"] | None = None
    fades: bool = False


@dataclass(frozen=True)
class Stretch:
    """A stretch of an arm's training; see `supervised.fit.Phase`, which it becomes.

    Attributes:
        steps: `all` of `classifier.steps`; the `refit`, a fifth of them; or the `rest` before a refit.
    """

    parts: tuple[Part, ...] = (Part("real"),)
    steps: Literal["all", "rest", "refit"] = "all"
    classical: bool = True
    mixup: bool = False
    loss: Loss = "plain"
    head: Literal["kept", "fresh", "alone"] = "kept"


@dataclass(frozen=True)
class ArmFacts:
    """An arm: what it is, how it is trained, what it must beat.

    Every arm takes the same steps. A pre-training takes as many again, in the GAN's arm and in its control alike.

    Attributes:
        words: what the classifier learns from, for the report.
        stretches: its training, one after the other, on one network.
        trunk: its classifier starts from, or stays on, the features of this trunk.
        representation: every image is this fixed vector to it, and `model` is its classifier; it has no network.
        imagenet: the network has ImageNet weights, fine-tuned at `classifier.pretrained_lr`.
        controls: arms with the same information. Without one of them the arm cannot be said to help, and it must beat
            each of them; an arm without controls is none that may help.
        also: further controls, which it must beat where they are among the arms.
        pool_gan: its GAN must have learnt from the unlabelled images too.
    """

    words: str
    stretches: tuple[Stretch, ...] = (Stretch(),)
    trunk: Trunk | None = None
    representation: Representation | None = None
    model: LinearModel | None = None
    imagenet: bool = False
    controls: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    pool_gan: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of all its stretches."""
        return tuple(part for stretch in self.stretches for part in stretch.parts)

    def sees(self, *images: Images) -> bool:
        """Whether a batch of it holds one of these."""
        return any(part.images in images for part in self.parts)

    @property
    def generator(self) -> bool:
        """Needs a trained GAN, so that it is made again for every GAN seed."""
        through_it = self.trunk == "gan" or self.representation in _REPRESENTATIONS_OF_THE_GAN
        return through_it or any(part.images in _SYNTHETIC for part in self.parts)

    @property
    def pool(self) -> bool:
        """Cannot do without unlabelled images, for itself or for its GAN."""
        return self.pool_gan or self.trunk in _TRUNKS_OF_THE_POOL or self.sees("pool")

    @property
    def sites(self) -> bool:
        """Must know the site of every training image."""
        return self.sees("cells", "synthetic_cells")

    @property
    def by_site(self) -> bool:
        """Needs a generator that is asked by site and class."""
        return self.sees("synthetic_cells")

    @property
    def looks_through_gan(self) -> bool:
        """Asks the GAN's nets about real or synthetic images, class by class."""
        return self.trunk == "gan" or self.representation in _REPRESENTATIONS_OF_THE_GAN or self.sees("curated")

    @property
    def ensemble(self) -> bool:
        """Begins with an ensemble of `classifier.seeds` classifiers that label images, made once a stage."""
        return any(part.images in _BY_AN_ENSEMBLE for part in self.parts)

    @property
    def trainings(self) -> int:
        """How many times `classifier.steps` steps a fit takes; a fixed representation's classifier takes none."""
        return 0 if self.representation else sum(stretch.steps != "refit" for stretch in self.stretches)

    @property
    def ratio(self) -> bool:
        """Its name ends in @RATIO, synthetic images for each real one in a batch."""
        return any(part.weight == "@ratio" for part in self.parts)

    @property
    def candidate(self) -> bool:
        """It may be said to help."""
        return bool(self.controls)

    @property
    def on_features(self) -> bool:
        """What its classifier learns from can be written down before the training, so that models on the features of
        images can learn it too."""
        first = self.stretches[0]
        plain = (
            not first.mixup and first.loss in ("plain", "class_weights") and not any(part.fades for part in self.parts)
        )
        own_network = self.trunk is not None or self.representation is not None or self.imagenet
        return plain and len(self.stretches) == 1 and not own_network


_OVERSAMPLING, _MIXUP = f"{REFERENCE_ARM}+oversampling", f"{REFERENCE_ARM}+mixup"
_PSEUDO_LABELS, _WEIGHTS = f"{REFERENCE_ARM}+pseudolabels", f"{REFERENCE_ARM}+classweights"
_ADJUSTED, _REFITTED = f"{REFERENCE_ARM}+logitadjustment", f"{REFERENCE_ARM}+refit"
_CELLS, _GROUP_DRO = f"{REFERENCE_ARM}+cellbalanced", f"{REFERENCE_ARM}+groupdro"
_OF_SITES = (_CELLS, _GROUP_DRO)
"""Plain remedies of a shortcut: a GAN that gains less than these where site and class go together is not needed."""
_REAL, _NATURAL, _SYNTHETIC_PART = Part("real"), Part("natural"), Part("synthetic")
_REFIT = Stretch(steps="refit", head="alone")
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


ARMS: dict[str, ArmFacts] = {
    "real": ArmFacts("real images as they are", (Stretch(classical=False),)),
    REFERENCE_ARM: ArmFacts("real images with classical augmentation"),
    # Half of every batch duplicates, where `synthetic@1` has synthetic images. The reference's batches are balanced
    # already, so this is nearly the reference again, in another order: an A/A control, which shows what chance does.
    _OVERSAMPLING: ArmFacts(
        "real images, duplicated to take the synthetic ones' place in every batch", (Stretch((_REAL, _REAL)),)
    ),
    _MIXUP: ArmFacts("mixtures of pairs of real images (mixup)", (Stretch(mixup=True),)),
    _WEIGHTS: ArmFacts(
        "real images as frequent as they are, the rarer class weighing more in the loss",
        (Stretch((_NATURAL,), loss="class_weights"),),
    ),
    # Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    _ADJUSTED: ArmFacts(
        "real images as frequent as they are, logits adjusted for the frequencies",
        (Stretch((_NATURAL,), loss="logit_adjustment"),),
    ),
    _REFITTED: ArmFacts(
        "real images as frequent as they are, the last layer fitted again on balanced batches",
        (Stretch((_NATURAL,), steps="rest"), _REFIT),
    ),
    # Where the site tells the class, the classifier meets every cell of site and class equally often.
    _CELLS: ArmFacts(
        "real images, every cell of site and class as often as the others", (Stretch((Part("cells"),)),)
    ),
    # Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020, algorithm 1.
    _GROUP_DRO: ArmFacts(
        "real images, cells of site and class equally often, those with high losses weighing more (group DRO)",
        (Stretch((Part("cells"),), loss="group_dro"),),
    ),
    # Lee, "Pseudo-Label", ICML workshop 2013, with soft labels: half of every batch is from the pool. The ensemble
    # knows the labelled training images only.
    _PSEUDO_LABELS: ArmFacts(
        "real images, and unlabelled ones labelled by an ensemble of classifiers", (Stretch((_REAL, Part("pool"))),)
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
    f"{REFERENCE_ARM}+synthetic": ArmFacts(
        "real images, classical augmentation and synthetic images",
        (Stretch((_REAL, Part("synthetic", "@ratio"))),),
        controls=(REFERENCE_ARM,), also=(_OVERSAMPLING, _MIXUP, PRETRAINED_ARM, *_OF_SITES),
    ),
    f"{REFERENCE_ARM}+curated": ArmFacts(
        "real images, classical augmentation and those synthetic images that passed three filters",
        (Stretch((_REAL, Part("curated", "@ratio"))),),
        controls=(REFERENCE_ARM,), also=(_OVERSAMPLING, _MIXUP, PRETRAINED_ARM, *_OF_SITES),
    ),
    "synthetic+classical": ArmFacts(
        "synthetic images only, with classical augmentation; tested on real ones", (Stretch((_SYNTHETIC_PART,)),)
    ),
    "synthetic-pretrained": ArmFacts(
        "synthetic images first, then real ones with a fresh head",
        (Stretch((_SYNTHETIC_PART,)), Stretch(head="fresh")),
        controls=(REFERENCE_ARM, "augmented-pretrained"), also=(PRETRAINED_ARM, *_OF_SITES),
    ),
    # Qraitem et al., "From Fake to Real", ECCV 2024: real and synthetic images never share a batch, so that "is
    # synthetic" cannot become the label.
    "cells-synthetic-pretrained": ArmFacts(
        "synthetic images of every cell of site and class first, then real ones, cells balanced, with a fresh head",
        (Stretch((Part("synthetic_cells"),)), Stretch((Part("cells"),), head="fresh")),
        controls=(REFERENCE_ARM, _CELLS, "cells-pretrained"), also=(_GROUP_DRO, PRETRAINED_ARM),
    ),
    "minority-synthetic": ArmFacts(
        "real images, the rare class filled up with synthetic ones, mixup, the last layer fitted again on real ones",
        (Stretch((_NATURAL, Part("minority")), steps="rest", mixup=True), _REFIT),
        controls=(REFERENCE_ARM, _WEIGHTS, _OVERSAMPLING, _ADJUSTED, _REFITTED),
        also=(_MIXUP, PRETRAINED_ARM, *_OF_SITES),
    ),
    # The class that the GAN was asked for is not trusted: an ensemble says what its images show.
    "pool-gan": ArmFacts(
        "real images and those of a GAN that also saw the unlabelled ones, weighing less and less",
        (Stretch((_REAL, Part("judged_synthetic", "pool_ratio", fades=True))),),
        controls=(REFERENCE_ARM, _PSEUDO_LABELS), also=(PRETRAINED_ARM, *_OF_SITES), pool_gan=True,
    ),
    "gan-features": ArmFacts(
        "real images, on the features of the GAN's discriminator", trunk="gan",
        controls=(REFERENCE_ARM, "simclr-features", "random-features"),
        also=("autoencoder-features", PRETRAINED_ARM, *_OF_SITES), pool_gan=True,
    ),
}  # fmt: skip
"""Names without @RATIO, in the order of a report."""


def classifier_fits(arms: Sequence[str], seeds: int, *, generator: bool) -> tuple[tuple[str, int], ...]:
    """Arm and seed of every classifier of one fold: those without a generator, or those of one generator.

    The second have the reference arm's first one among them, for the reverse check.
    """
    own = [(arm, seed) for arm in arms if uses_synthetic(arm) == generator for seed in range(seeds)]
    return (*own, (REFERENCE_ARM, 0)) if generator else tuple(own)


def part_name(arm: str, seed: int) -> str:
    """`ARM seed S`: what one classifier is called among the parts of its stage."""
    return f"{arm} seed {seed}"


def arm_facts(name: str) -> ArmFacts | None:
    """Facts of the arm called `name`, such as `real+classical+synthetic@1`; None where there is no such arm."""
    match = _RATIO.fullmatch(name)
    facts = ARMS.get(match["stem"] if match else name)
    return facts if facts is not None and facts.ratio == (match is not None) else None


def nearest_arm(name: str) -> str:
    """What an error about an unknown arm says next: the nearest right one, with its ratio, if one is near."""
    stem, _, ratio = name.partition("@")
    meant = nearest(stem, list(ARMS))
    if not meant:
        return ""
    return f" (did you mean {meant}{f'@{ratio or 1}' if ARMS[meant].ratio else ''}?)"


def known_arm(name: str) -> ArmFacts:
    """Facts of the arm called `name`.

    Raises:
        ConfigError: there is no such arm.
    """
    facts = arm_facts(name)
    if facts is None:
        raise ConfigError(f"arms: there is no arm {name}{nearest_arm(name)}.")
    return facts


def representation_of(name: str) -> Representation | None:
    """The fixed representation that the arm called `name` works on, if it is such an arm."""
    facts = arm_facts(name)
    return facts.representation if facts else None


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
