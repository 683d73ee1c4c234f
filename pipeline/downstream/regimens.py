"""How each arm's classifier is trained. Every arm takes the same number of steps at the same batch size and schedule.

Three rules hold for all: batches of real images are class-balanced (which is the simplest strong remedy of imbalance)
unless the arm's own remedy needs them as they are; synthetic images get the same classical transforms as real ones; a
pre-training takes as many steps again, in the GAN's arm and in its control alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.config.arms import PRETRAINED_ARM, REFERENCE_ARM, arm_ratio
from pipeline.config.experiment import ClassifierConfig
from pipeline.downstream.material import Material
from pipeline.nets.classifiers import PRETRAINED
from pipeline.supervised.fit import Phase, Regimen

REFIT = 0.2
"""Share of the steps in which the last layer alone is fitted again (Kang et al. give it 10 of 100 epochs)."""


@dataclass(frozen=True)
class Ask:
    """What a regimen is made from."""

    config: ClassifierConfig
    material: Material
    ratio: float

    @property
    def steps(self) -> int:
        return self.config.steps

    @property
    def refit_steps(self) -> int:
        return max(1, round(REFIT * self.steps))


def regimen_of(arm: str, config: ClassifierConfig, material: Material) -> Regimen:
    """The training of `arm`'s classifier; see `REGIMENS`.

    Raises:
        DataError: the arm cannot be trained on these images; the message names the mend.
    """
    return REGIMENS[arm.split("@")[0]](Ask(config, material, arm_ratio(arm)))


def reference(ask: Ask) -> Regimen:
    """Real images, class-balanced, with the classical transforms."""
    return Regimen((Phase((ask.material.real,), ask.steps),))


def plain(ask: Ask) -> Regimen:
    """Real images as they are, without transforms."""
    return Regimen((Phase((ask.material.real,), ask.steps, classical=False),))


def oversampling(ask: Ask) -> Regimen:
    """Half of every batch duplicates of the real images, where `synthetic@1` has synthetic ones.

    The reference's batches are class-balanced already, so this is nearly the reference again, drawn in another order:
    an A/A control, whose difference from the reference shows what chance does.
    """
    return Regimen((Phase((ask.material.real, ask.material.real), ask.steps),))


def mixup(ask: Ask) -> Regimen:
    return Regimen((Phase((ask.material.real,), ask.steps, mixup=True),))


def class_weights(ask: Ask) -> Regimen:
    return Regimen((Phase((ask.material.natural,), ask.steps, loss="class_weights"),))


def logit_adjustment(ask: Ask) -> Regimen:
    """Menon et al., "Long-tail learning via logit adjustment", ICLR 2021."""
    return Regimen((Phase((ask.material.natural,), ask.steps, loss="logit_adjustment"),))


def refit(ask: Ask) -> Regimen:
    """Classifier retraining: Kang et al., "Decoupling representation and classifier", ICLR 2020."""
    return Regimen((Phase((ask.material.natural,), ask.steps - ask.refit_steps), _last_layer(ask)))


def _last_layer(ask: Ask) -> Phase:
    return Phase((ask.material.real,), ask.refit_steps, head="alone")


def pseudo_labels(ask: Ask) -> Regimen:
    """Half of every batch from the pool, under the soft labels of an ensemble of reference classifiers.

    The ensemble knows the labelled training images only. Lee, "Pseudo-Label", ICML workshop 2013, with soft labels.
    """
    return Regimen((Phase((ask.material.real, ask.material.pool), ask.steps),))


def pretrained(ask: Ask) -> Regimen:
    """EfficientNet-Lite0 with ImageNet weights, all of it fine-tuned at `classifier.pretrained_lr`."""
    return replace(reference(ask), network=PRETRAINED, lr=ask.config.pretrained_lr)


def augmented_pretrained(ask: Ask) -> Regimen:
    first = Phase((ask.material.real,), ask.steps)
    return Regimen((first, replace(first, head="fresh")))


def synthetic_pretrained(ask: Ask) -> Regimen:
    first = Phase((ask.material.synthetic,), ask.steps)
    return Regimen((first, Phase((ask.material.real,), ask.steps, head="fresh")))


def with_synthetic(ask: Ask) -> Regimen:
    synthetic = replace(ask.material.synthetic, weight=ask.ratio)
    return Regimen((Phase((ask.material.real, synthetic), ask.steps),))


def with_curated(ask: Ask) -> Regimen:
    curated = ask.material.curated(ask.config.batch_size * ask.ratio / (1 + ask.ratio))
    return Regimen((Phase((ask.material.real, replace(curated, weight=ask.ratio)), ask.steps),))


def synthetic_only(ask: Ask) -> Regimen:
    return Regimen((Phase((ask.material.synthetic,), ask.steps),))


def pool_gan(ask: Ask) -> Regimen:
    """`classifier.pool_ratio` synthetic images for each real one, their weight in the loss falling from 1 to 0.

    Their labels are the ensemble's probabilities: the class that the GAN was asked for is not trusted.
    """
    synthetic = replace(ask.material.judged_synthetic, weight=ask.config.pool_ratio, fades=True)
    return Regimen((Phase((ask.material.real, synthetic), ask.steps),))


def minority(ask: Ask) -> Regimen:
    """Real images as frequent as they are, synthetic ones of the rarer classes up to balance, mixup; then a refit."""
    filled = Phase((ask.material.natural, ask.material.minority), ask.steps - ask.refit_steps, mixup=True)
    return Regimen((filled, _last_layer(ask)))


REGIMENS: dict[str, Callable[[Ask], Regimen]] = {
    "real": plain,
    REFERENCE_ARM: reference,
    f"{REFERENCE_ARM}+oversampling": oversampling,
    f"{REFERENCE_ARM}+mixup": mixup,
    f"{REFERENCE_ARM}+classweights": class_weights,
    f"{REFERENCE_ARM}+logitadjustment": logit_adjustment,
    f"{REFERENCE_ARM}+refit": refit,
    f"{REFERENCE_ARM}+pseudolabels": pseudo_labels,
    PRETRAINED_ARM: pretrained,
    "augmented-pretrained": augmented_pretrained,
    f"{REFERENCE_ARM}+synthetic": with_synthetic,
    f"{REFERENCE_ARM}+curated": with_curated,
    "synthetic+classical": synthetic_only,
    "synthetic-pretrained": synthetic_pretrained,
    "minority-synthetic": minority,
    "pool-gan": pool_gan,
}
"""All arms but those on the features of a trunk, which `features.py` holds; names without @RATIO."""
