"""What the supervised loop minimises, and how batches are mixed. Pure tensor code, in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, class_weight: Tensor) -> Tensor:
    """Σ wᵢ Σ_k c_k tᵢ_k (-log pᵢ_k) / Σ wᵢ over a batch.

    Args:
        logits, target: [B, num_classes]; a target's row sums to 1.
        weight: [B], of an image; the loss is a mean over these weights.
        class_weight: [num_classes], mean 1 over the training images, so that the loss stays an unbiased mean.
    """
    losses = -(class_weight * target * logits.log_softmax(dim=1)).sum(dim=1)
    return (weight * losses).sum() / weight.sum()


def jensen_shannon(logits: Tensor, other: Tensor) -> Tensor:
    """Mean over a batch of ½ KL(p || m) + ½ KL(q || m), m = (p + q) / 2, of the answers p and q; at most log 2.

    Goel et al., "Model Patching", ICLR 2021, ask for equal answers by it.

    Args:
        logits, other: [B, num_classes], of p and q.
    """
    first, second = logits.log_softmax(dim=1), other.log_softmax(dim=1)
    mean = torch.logaddexp(first, second) - math.log(2)
    divergence = first.exp() * (first - mean) + second.exp() * (second - mean)
    return 0.5 * divergence.sum(dim=1).mean()


def fixmatch(logits: Tensor, strong: Tensor, threshold: float = 0.95) -> Tensor:
    """Mean over B images of 1(max p >= threshold) H(argmax p, q), where p is the answer on the weakly transformed copy.

    Sohn et al., "FixMatch", NeurIPS 2020, equation 4, with the paper's threshold. No gradient flows through p.

    Args:
        logits, strong: [B, num_classes], of p and of q, the answer on the strongly transformed copy.
    """
    sure, answer = logits.detach().softmax(dim=1).max(dim=1)
    losses = torch.nn.functional.cross_entropy(strong, answer, reduction="none")
    return ((sure >= threshold) * losses).mean()


class GroupDro:
    """The loss of group DRO: Sagawa et al., "Distributionally robust neural networks for group shifts", ICLR 2020.

    Every step the weight q_g of a group is multiplied by exp(η L_g), L_g being the mean cross-entropy of its images in
    the batch (0 where it has none), the weights are scaled to sum to 1, and the loss is Σ_g q_g L_g (algorithm 1;
    batches hold all groups equally, in place of one group drawn a step).

    Args:
        groups: how many there are; q starts equal.
        step: η; 0.01 is the paper's.
    """

    def __init__(self, groups: int, device: str, step: float = 0.01) -> None:
        self.step = step
        self.weights = torch.full((groups,), 1 / groups, device=device)

    def __call__(self, logits: Tensor, target: Tensor, group: Tensor) -> Tensor:
        """A scalar; the groups' weights move.

        Args:
            logits, target: [B, num_classes]; a target's row sums to 1.
            group: [B] numbers of groups.
        """
        losses = -(target * logits.log_softmax(dim=1)).sum(dim=1)
        members = torch.nn.functional.one_hot(group, len(self.weights)).float()
        means = (members * losses[:, None]).sum(dim=0) / members.sum(dim=0).clamp(min=1)
        raised = self.weights * (self.step * means.detach()).exp()
        self.weights = raised / raised.sum()
        return (self.weights * means).sum()


def balancing_weights(counts: Tensor) -> Tensor:
    """Inverse class frequencies n / (K n_k) of `counts` [K]: their mean over the training images is 1."""
    return counts.sum() / (len(counts) * counts)


def log_prior(counts: Tensor) -> Tensor:
    """log of the class frequencies [K].

    Added to the logits in the training loss, and left out when the classifier is applied, it makes the classifier
    minimise the balanced error: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10 with
    τ = 1.
    """
    return (counts / counts.sum()).log()


def mixed_pairs(images: Tensor, target: Tensor, share: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """λ x + (1 - λ) x', and the targets likewise: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.

    Args:
        images: [B, C, *spatial].
        target: [B, num_classes].
        share: λ [B], one a pair.
        partner: [B], the image that each one is mixed with.
    """
    voxels = share.view(-1, *[1] * (images.ndim - 1))
    mixed = voxels * images + (1 - voxels) * images[partner]
    return mixed, share[:, None] * target + (1 - share[:, None]) * target[partner]


def mixed_amplitudes(images: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """Images with their own Fourier phases and λ of their own amplitudes, 1 - λ of others'.

    Xu et al., "A Fourier-based framework for domain generalization" (FACT), CVPR 2021, equation 5. Amplitudes are of
    intensities from 0 on, as in the paper.

    Args:
        images: [B, C, *spatial] in [-1, 1].
        share: λ [B].
        partner: [B], the image that gives each one amplitudes.
    """
    axes = tuple(range(2, images.ndim))
    spectrum = torch.fft.rfftn(images + 1, dim=axes)
    amplitude, own = spectrum.abs(), share.view(-1, *[1] * (images.ndim - 1))
    mixed = torch.polar(own * amplitude + (1 - own) * amplitude[partner], spectrum.angle())
    return torch.fft.irfftn(mixed, s=images.shape[2:], dim=axes) - 1


def nt_xent(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of SimCLR: Chen et al., ICML 2020, equation 1.

    Args:
        one, two: [B, D], two views of the same images; each is to be found among the 2 B - 1 others of the batch.
    """
    views = torch.nn.functional.normalize(torch.cat([one, two]), dim=1)
    similarity = views @ views.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
    positive = torch.arange(len(views), device=views.device).roll(len(one))
    return torch.nn.functional.cross_entropy(similarity, positive)
