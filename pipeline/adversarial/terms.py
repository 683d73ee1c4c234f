"""Objectives: terms of the players' losses that read logits, mean-reduced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from pipeline.adversarial.turns import NoiseTurn


def logistic_discriminator(turn: NoiseTurn) -> Tensor:
    """-mean log σ(D(real)) - mean log(1 - σ(D(fake))) (Goodfellow et al., NeurIPS 2014)."""
    return softplus(-turn.real_logits).mean() + softplus(turn.fake_logits).mean()


def smoothed_logistic_discriminator(real_target: float) -> Callable[[NoiseTurn], Tensor]:
    """The logistic loss with the real target lowered to `real_target`: one-sided label smoothing.

    Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016.
    """

    def term(turn: NoiseTurn) -> Tensor:
        real = real_target * softplus(-turn.real_logits) + (1 - real_target) * softplus(turn.real_logits)
        return real.mean() + softplus(turn.fake_logits).mean()

    return term


def non_saturating_generator(turn: NoiseTurn) -> Tensor:
    """-mean log σ(D(fake)) (Goodfellow et al. 2014, section 3)."""
    return softplus(-turn.fake_logits).mean()


def minimax_generator(turn: NoiseTurn) -> Tensor:
    """mean log(1 - σ(D(fake))), the value that the first GAN's generator lowers; it saturates."""
    return -softplus(turn.fake_logits).mean()


def wasserstein_discriminator(turn: NoiseTurn) -> Tensor:
    """mean D(fake) - mean D(real): minus the estimate of the Wasserstein distance (Arjovsky et al., ICML 2017)."""
    return turn.fake_logits.mean() - turn.real_logits.mean()


def wasserstein_generator(turn: NoiseTurn) -> Tensor:
    """-mean D(fake)."""
    return -turn.fake_logits.mean()


def hinge_discriminator(turn: NoiseTurn) -> Tensor:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)) (Lim & Ye 2017; Miyato et al. 2018)."""
    return torch.relu(1 - turn.real_logits).mean() + torch.relu(1 + turn.fake_logits).mean()


def hinge_generator(turn: NoiseTurn) -> Tensor:
    """-mean D(fake)."""
    return -turn.fake_logits.mean()


def least_squares_discriminator(turn: NoiseTurn) -> Tensor:
    """mean (D(real) - 1)² + mean D(fake)², halved (Mao et al., "Least Squares GANs", ICCV 2017)."""
    return 0.5 * ((turn.real_logits - 1).square().mean() + turn.fake_logits.square().mean())


def least_squares_generator(turn: NoiseTurn) -> Tensor:
    """mean (D(fake) - 1)², halved."""
    return 0.5 * (turn.fake_logits - 1).square().mean()


def class_of_real(turn: NoiseTurn) -> Tensor:
    """Cross-entropy of the auxiliary classifier on real images (Odena et al., AC-GAN, ICML 2017)."""
    return class_loss(turn.real_judgement.class_logits, turn.condition.label)


def class_of_fake(turn: NoiseTurn) -> Tensor:
    """Cross-entropy of the auxiliary classifier on fakes, against the class that was asked for."""
    return class_loss(turn.fake_judgement.class_logits, turn.condition.label)


def class_loss(class_logits: Tensor | None, label: Tensor | None) -> Tensor:
    """Cross-entropy of a discriminator's classifier [B, num_classes] against classes [B]."""
    assert class_logits is not None and label is not None, "this discriminator has no auxiliary classifier"
    return cross_entropy(class_logits, label)
