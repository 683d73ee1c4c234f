"""`certificate.json`: what a generator's weights promise, under which conditions, and what they do not.

Its fields follow NIST SP 800-226, "Guidelines for Evaluating Differential Privacy Guarantees" (2025).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.loop import GanTraining
from pipeline.adversarial.private.budget import Budget
from pipeline.config.gan import GanConfig
from pipeline.core.files import read_json, write_json
from pipeline.core.layout import CERTIFICATE, MODEL

DEFINITION = (
    "(ε, δ)-differential privacy: whatever one unit's images are, and whether they are there or not, no set of "
    "outcomes is more than e^ε times as likely, but for a probability of δ (Dwork et al. 2006)."
)
TRUST = (
    "Central: who trains holds the images and is trusted with them; noise is added while training. Who receives the "
    "weights, or images made from them, may hold anything else and compute as long as they like. The run's own "
    "directory, its logs, figures and report, stays with whoever trained."
)
OUTSIDE = (
    "The number of units and the names of the classes, which count as public.",
    "Preparation: resizing and the intensity window come from the configuration and are as private as whoever chose "
    "them by looking at the images; duplicates are found, and the split is made, by looking at them.",
    "Tuning: every other training that was looked at on these patients, other settings, folds and GAN seeds among "
    "them. This certificate is of one training.",
    "Selection: synthetic images that are kept or dropped by a model that saw patients (curation).",
    "Everything in the run that is made from real images beside the generator: classifiers, figures, the audit, the "
    "report.",
    "A training that stops because a loss is not finite; the time that it takes.",
    "Arithmetic: the noise is of floating-point numbers (Mironov 2012) and of a Mersenne Twister that the operating "
    "system's 63 random bits start; it is no cryptographic generator.",
)
_PUBLIC = (
    "The weights that training began with, of a generator with the digest {}: the images behind them count as public, "
    "and nothing is promised to the patients whom these show."
)
SWITCHED_OFF = (
    "collapse watch and rollbacks", "adaptive augmentation", "attributes and masks of training images",
    "batch norm (group norm instead)", "losses and logits of real images in the log", "unlabelled images",
)  # fmt: skip
_MECHANISMS = {
    "discriminator": "DP-SGD on the discriminator (Abadi et al. 2016; Bie et al. 2023): Poisson sampling of units, one "
    "image of each; the gradient of that image and of one fake together is clipped; Gaussian noise on the sum. The "
    "generator learns from the discriminator alone.",
    "embedding": "DP-MERF (Harder et al. 2021): one sum of random Fourier features over all units, each of whom adds "
    "the mean of his images' features, with Gaussian noise. The generator learns from that sum alone.",
}


def certificate_of(
    gan: GanConfig, budget: Budget, weights: dict[str, str], figures: dict[str, Any], started_from: str = ""
) -> dict[str, Any]:
    """The certificate of weights with these digests.

    Args:
        figures: what was spent, as `Budget.spent` gives it.
        started_from: digest of the generator's weights that training began with; empty = random ones.
    """
    assert gan.dp is not None
    unit = gan.dp.unit
    rate = {} if budget.rate == 1 else {"sampling": "Poisson", "sampling_rate": budget.rate}
    return {
        "guarantee": DEFINITION,
        "unit": unit,
        "neighbours": f"two data sets of which one has one {unit} more, with all images of that {unit}",
        "epsilon": figures["epsilon"],
        "delta": budget.delta,
        "budget": {"epsilon": budget.epsilon, "delta": budget.delta},
        "accountant": figures["accountant"],
        "accountants": figures["accountants"],
        "mechanism": _MECHANISMS[FAMILIES[gan.family].private],
        "family": gan.family,
        "units": budget.patients,
        "noise_multiplier": budget.noise,
        **rate,
        "steps": budget.looks,
        "clip": budget.clip,
        "trust_model": TRUST,
        "covers": "the weights beside it, and whatever is made from them without another look at the patients",
        "outside": [*OUTSIDE, *([_PUBLIC.format(started_from)] if started_from else [])],
        "switched_off": list(SWITCHED_OFF),
        "opacus": version("opacus"),
        "weights": weights,
    }


def write_certificate(out_dir: Path, training: GanTraining, gan: GanConfig, started_from: str = "") -> None:
    """Leave the certificate beside finished weights; nothing where there is no `gan.dp`."""
    budget = training.budget
    if budget is not None:
        weights = read_json(out_dir / MODEL)["weights"]
        write_json(out_dir / CERTIFICATE, certificate_of(gan, budget, weights, budget.spent(), started_from))


def private_notes(training: GanTraining, name: str) -> tuple[str, ...]:
    """For the record: what was spent, what is switched off, and whether training ended early."""
    budget = training.budget
    if budget is None:
        return ()
    figures = budget.spent()
    said = (
        f"{name}: differentially private with ε = {figures['epsilon']:.2f} and δ = {budget.delta:.1e}, by "
        f"{figures['accountant']}; its certificate says of what. Switched off: {', '.join(SWITCHED_OFF)}."
    )
    return (said,)
