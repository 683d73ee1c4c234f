"""What an arm's entry in `pipeline/config/arms.py` comes to: the training of its classifier on a fold's images.

Every arm takes the same number of steps at the same batch size and schedule. Batches of real images are class-balanced
(which is the simplest strong remedy of imbalance) unless the arm's own remedy needs them as they are, and synthetic
images get the same classical transforms as real ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.config.arms import Part, Stretch, arm_ratio, known_arm
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.errors import DataError
from pipeline.downstream.material import Material
from pipeline.nets.classifiers import PRETRAINED
from pipeline.supervised.fit import Phase, Regimen, Share

REFIT = 0.2
"""Share of the steps in which the last layer alone is fitted again (Kang et al. give it 10 of 100 epochs)."""


def regimen_of(arm: str, config: ClassifierConfig, material: Material) -> Regimen:
    """The training of `arm`'s classifier, but for an arm on the features of a trunk, which `features.py` trains.

    Raises:
        ConfigError: there is no such arm.
        DataError: the arm cannot be trained on these images; the message names the mend.
    """
    facts, ratio = known_arm(arm), arm_ratio(arm)
    phases = tuple(_phase(stretch, ratio, config, material) for stretch in facts.stretches)
    if facts.imagenet:
        return Regimen(phases, network=PRETRAINED, lr=config.pretrained_lr)
    return Regimen(phases)


def _phase(stretch: Stretch, ratio: float, config: ClassifierConfig, material: Material) -> Phase:
    refit = max(1, round(REFIT * config.steps))
    parts = [part for part in stretch.parts if part.images != "target" or material.archives]
    weights = [_weight(part, ratio, config) for part in parts]
    sizes = [1.0 if weight is None else weight for weight in weights]
    shares = tuple(
        _share(part, weight, config.batch_size * size / sum(sizes), material)
        for part, weight, size in zip(parts, weights, sizes, strict=True)
    )
    if stretch.align or stretch.mixup in ("across_sites", "amplitudes"):
        _require_sites(shares, material, paired=stretch.mixup == "across_sites")
    return Phase(
        shares,
        {"all": config.steps, "rest": config.steps - refit, "refit": refit}[stretch.steps],
        classical=stretch.classical,
        mixup=stretch.mixup,
        loss=stretch.loss,
        agreement=stretch.agreement,
        fixmatch=stretch.fixmatch,
        align=stretch.align,
        head=stretch.head,
    )


def _require_sites(shares: tuple[Share, ...], material: Material, *, paired: bool) -> None:
    """Refuse to bring together sites of which there is one.

    Args:
        paired: by labelled images of one class.

    Raises:
        DataError: as above.
    """
    seen = [set(np.unique(share.domains)) for share in shares if share.domains is not None]
    labels = material.dataset.labels(material.real.rows, material.classes).numpy()
    by_class = [material.domains(material.real.rows[labels == number]) for number in np.unique(labels)]
    if paired and all(len(np.unique(one)) < 2 for one in by_class):
        raise DataError(
            "arms: crosssitemixup mixes images of one class and two sites, and no class has labelled training images "
            "of two sites. Label some (data.correlation), or leave the arm out."
        )
    if len(set().union(*seen)) < 2:
        raise DataError(
            "arms: coral, dann and amplitudemix bring two sites together, and their training images are all of one. "
            "Add another site (data.sources; an unlabelled one will do for coral and dann), or leave these arms out."
        )


def _weight(part: Part, ratio: float, config: ClassifierConfig) -> float | None:
    if part.weight == "@ratio":
        return ratio
    return config.pool_ratio if part.weight == "pool_ratio" else part.weight


def _share(part: Part, weight: float | None, images_a_batch: float, material: Material) -> Share:
    share: Share = material.curated(images_a_batch) if part.images == "curated" else getattr(material, part.images)
    return replace(share, weight=share.weight if weight is None else weight, fades=part.fades)
