"""How well can the generator itself make an image? Its code is sought by gradient descent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.weights import load_net
from pipeline.nets.conditions import Condition, as_generator
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target

_RATE, _PRIOR = 0.05, 1e-3


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """Less the root mean square error of the best image found, [N]; NaN for images that are not tried.

    Twice `inversion_images` candidates are tried, drawn without a look at who is a member: all of them where there are
    no more. Adam moves the codes of a block for `inversion_steps` steps; an image without a class is sought in each.
    """
    net, description = load_net(target.inputs["fit-gan"], "generator")
    net = net.to(target.device).eval().requires_grad_(False)
    found = np.full(len(candidates), np.nan)
    family = FAMILIES[description["gan"]["family"]]
    if family.needs or description["gan"]["attributes"]:
        return found
    random = torch.Generator().manual_seed(target.seed)
    tried = (
        torch.randperm(len(candidates), generator=random)[: 2 * target.config.inversion_images].sort().values.numpy()
    )
    classes = list(description["classes"])
    start = 0
    for block in Images(candidates.images.dataset, candidates.images.rows[tried]):
        at = tried[start : start + len(block)]
        start += len(block)
        known = [[classes.index(label)] if label in classes else range(len(classes)) for label in candidates.label[at]]
        best = np.full(len(block), np.inf)
        for turn in range(max(map(len, known))):
            label = torch.tensor([one[min(turn, len(one) - 1)] for one in known])
            best = np.minimum(best, _errors(net, block, label, target, random))
        found[at] = -best
    return found


def _errors(net: nn.Module, images: Tensor, label: Tensor, target: Target, random: torch.Generator) -> np.ndarray:
    """Root mean square errors [B] of the nearest images that were found."""
    there = images.to(target.device)
    condition = Condition(label=label.to(target.device))
    z = torch.randn(len(images), as_generator(net).latent_dim, generator=random).to(target.device).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=_RATE)
    least = torch.full((len(images),), torch.inf, device=target.device)
    for _ in range(target.config.inversion_steps):
        errors = (net(z, condition) - there).square().flatten(1).mean(dim=1)
        least = torch.minimum(least, errors.detach())
        optimizer.zero_grad()
        (errors.sum() + _PRIOR * z.square().mean(dim=1).sum()).backward()
        optimizer.step()
    return least.sqrt().double().cpu().numpy()


ATTACK = AttackFacts(
    "Chen et al., GAN-Leaks, ACM CCS 2020, partial black and white box", scores, holds="generator",
    note="Families that make images from masks or other images, or are asked by attributes, are not inverted.",
)  # fmt: skip
