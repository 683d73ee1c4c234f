"""What an arm's entry says of it: its training, stretch by stretch, and what it must be compared with.

docs/add-an-arm.md adds an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REFERENCE_ARM = "real+classical"
PRETRAINED_ARM = "pretrained+classical"

Images = Literal[
    "real",
    "natural",
    "cells",
    "cells_twice",
    "pool",
    "unlabelled",
    "target",
    "target_judged",
    "synthetic",
    "synthetic_cells",
    "cells_translated",
    "as_target",
    "rare_cells",
    "judged_synthetic",
    "minority",
    "curated",
]
"""What a batch can be mixed from, as `downstream.material.Material` hands it out.

`real`: the labelled training images, class-balanced; `natural`: as frequent as they are; `cells`: every cell of site
and class as frequent as the others; `cells_twice`: the same, each image beside itself; `pool`: the unlabelled ones
under an ensemble's labels; `unlabelled`: the same without any, which weigh nothing in the loss of classes; `target`:
those of unlabelled sites, likewise;
`target_judged`: the same under the labels of an ensemble that learnt from `as_target`; `synthetic`: class-balanced
under the classes that were asked for; `synthetic_cells`: every cell that was asked for as frequent as the others;
`cells_translated`: `cells`, each real image beside its translation to the other site; `as_target`: translations to the
unlabelled site, class-balanced; `rare_cells`: synthetic ones of the rarer cells, up to balance; `judged_synthetic`:
under an ensemble's labels; `minority`: synthetic ones of the rarer classes, up to balance; `curated`: those that
passed three filters, one of which is an ensemble.
"""
Classical = bool | Literal["appearance"]
Mixing = bool | Literal["across_sites", "amplitudes"]
Loss = Literal["plain", "class_weights", "logit_adjustment", "group_dro"]
Align = Literal["coral", "dann"]
Look = Literal["standardised", "equalised", "site_centred", "matched", "fourier", "harmonised"]
Trunk = Literal["gan", "random", "simclr", "autoencoder"]
Representation = Literal["vae", "f-anogan", "discriminator", "effnet"]
LinearModel = Literal["logistic", "svm"]
_SYNTHETIC = {
    "synthetic", "synthetic_cells", "cells_translated", "as_target", "rare_cells", "judged_synthetic", "minority",
    "curated",
}  # fmt: skip
_OF_CELLS = {"synthetic_cells", "cells_translated", "as_target", "rare_cells"}
_BY_AN_ENSEMBLE = {"pool", "target_judged", "judged_synthetic", "curated"}
_TRUNKS_OF_THE_POOL = {"simclr", "autoencoder"}
_REPRESENTATIONS_OF_THE_GAN = {"f-anogan", "discriminator"}
_LOOKS_AT_A_TARGET = {"matched", "fourier"}


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
        agreement: weight of equal answers on an image and on what lies beside it.
        classical: with the classical transforms; `appearance`: with stronger ones of intensities and sharpness too.
        mixup: pairs of any two images, or of two of one class and different sites; `amplitudes`: each image gets some
            of the Fourier amplitudes of one of another site, and keeps its label.
        fixmatch: its unlabelled images are learnt by the classifier's own sure answers, in two transformed copies.
        align: what is added to the loss so that features of different sites are alike. Its part `target` is left out
            where no site is unlabelled.
    """

    parts: tuple[Part, ...] = (Part("real"),)
    steps: Literal["all", "rest", "refit"] = "all"
    classical: Classical = True
    mixup: Mixing = False
    loss: Loss = "plain"
    agreement: float = 0.0
    fixmatch: bool = False
    align: Align | None = None
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
        look: how it sees every image, in training, validation and test alike (`pipeline/downstream/looks.py`).
        target_norms: images of an unlabelled site go through its batch norms with that site's own statistics.
        imagenet: the network has ImageNet weights, fine-tuned at `classifier.pretrained_lr`.
        controls: arms with the same information. Without one of them the arm cannot be said to help, and it must beat
            each of them; an arm without controls is none that may help.
        also: further controls, which it must beat where they are among the arms.
        pool_gan: its GAN must have learnt from the unlabelled images too.
        translator: its GAN must translate between sites.
    """

    words: str
    stretches: tuple[Stretch, ...] = (Stretch(),)
    trunk: Trunk | None = None
    representation: Representation | None = None
    model: LinearModel | None = None
    look: Look | None = None
    target_norms: bool = False
    imagenet: bool = False
    controls: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    pool_gan: bool = False
    translator: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of all its stretches."""
        return tuple(part for stretch in self.stretches for part in stretch.parts)

    def sees(self, *images: Images) -> bool:
        """Whether a batch of it holds one of these."""
        return any(part.images in images for part in self.parts)

    @property
    def sees_synthetic(self) -> bool:
        """Whether a batch of it holds synthetic images."""
        return any(part.images in _SYNTHETIC for part in self.parts)

    @property
    def generator(self) -> bool:
        """Needs a trained GAN, so that it is made again for every GAN seed."""
        through_it = self.trunk == "gan" or self.representation in _REPRESENTATIONS_OF_THE_GAN
        return through_it or self.sees_synthetic or self.blind_translator

    @property
    def pool(self) -> bool:
        """Cannot do without unlabelled images, for itself or for its GAN."""
        return self.pool_gan or self.trunk in _TRUNKS_OF_THE_POOL or self.sees("pool", "unlabelled")

    @property
    def sites(self) -> bool:
        """Must know the site of every training image."""
        through_sites = self.look in ("site_centred", "harmonised")
        return self.by_site or self.sees("cells", "cells_twice") or through_sites or self.target

    @property
    def blind_translator(self) -> bool:
        """Its GAN must translate between sites and know no classes, since test images go through it."""
        return self.look == "harmonised"

    @property
    def target(self) -> bool:
        """Cannot do without an unlabelled site."""
        return self.target_norms or self.look in _LOOKS_AT_A_TARGET or self.sees("as_target")

    @property
    def by_site(self) -> bool:
        """Needs a generator that is asked by site and class."""
        return any(part.images in _OF_CELLS for part in self.parts)

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
        """How many times `classifier.steps` steps a fit takes; a fixed representation's classifier takes none. Steps on
        images that have another one, or another copy, beside them count twice."""
        own = (
            2 if stretch.agreement or stretch.fixmatch else 1 for stretch in self.stretches if stretch.steps != "refit"
        )
        return 0 if self.representation else sum(own)

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
        simple = not (first.mixup or first.agreement or first.fixmatch or first.align)
        plain = simple and first.loss in ("plain", "class_weights") and not any(part.fades for part in self.parts)
        own_network = self.trunk is not None or self.representation is not None or self.imagenet or self.target_norms
        return plain and len(self.stretches) == 1 and not own_network
