"""What does the generator's opponent think? It saw the training images themselves."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.adversarial.weights import load_net
from pipeline.nets.conditions import Condition
from pipeline.privacy.attack import AttackFacts, Candidates, Target


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """The discriminator's logit of each image, under its own class where it has one, else the greatest of all, [N].

    A discriminator that judges an image beside its mask is shown an empty one, and mean attributes.
    """
    net, description = load_net(target.inputs["fit-gan"], "discriminator")
    net, classes = net.to(target.device).eval(), list(description["classes"])
    attributes = len(description["gan"]["attributes"])
    logits: list[torch.Tensor] = []
    with torch.no_grad():
        for block in candidates.images:
            there = block.to(target.device)
            size, mask = len(there), torch.zeros(len(there), 1, *there.shape[2:], device=target.device)
            zeros = torch.zeros(size, attributes, device=target.device) if attributes else None
            found = [
                net(there, Condition(label=torch.full((size,), one, device=target.device), mask=mask, attributes=zeros))
                for one in range(len(classes))
            ]
            logits.append(torch.stack([one.logits.reshape(size, -1).mean(dim=1) for one in found]).float().cpu())
    by_class = torch.cat(logits, dim=1).double().numpy()
    number = [classes.index(label) if label in classes else -1 for label in candidates.label]
    own = by_class[np.maximum(number, 0), np.arange(len(candidates))]
    return np.where(np.array(number) < 0, by_class.max(axis=0), own)


ATTACK = AttackFacts(
    "Hayes et al., LOGAN: Membership Inference Attacks Against Generative Models, PoPETs 2019, white box", scores,
    holds="discriminator", gates=False,
    note="For information only: a discriminator is never shared, and knows far more than its generator.",
)  # fmt: skip
