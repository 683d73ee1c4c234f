"""Every image as one translator shows it at one site, in training and test alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.adversarial.loop import sample
from pipeline.adversarial.weights import load_net
from pipeline.core.errors import DataError, LeakageError
from pipeline.data.batches.intensities import Images
from pipeline.nets.conditions import Condition, as_generator


def harmoniser(directory: Path, fold: int, home: str, device: str) -> Callable[[Images, np.ndarray], Images]:
    """Images [B, C, *spatial] in [-1, 1] with their sites [B] -> these images at the site `home`.

    Images of another site are translated there. Those of `home` go to the next site and back, so that all have left
    the same translator and its traces tell no site.

    Args:
        directory: of a fit-gan stage whose translator knows no classes: nobody knows the class of a test image.
        home: "" = the translator's first site.

    Raises:
        DataError: the generator is no such translator.
        LeakageError: it is another fold's, and may have seen this fold's test patients.
    """
    net, told = load_net(directory, "generator")
    if told["gan"].get("between") != "archives":
        raise DataError("arms: harmonised needs a translator that knows no classes. Set gan.between: archives.")
    if int(told["fold"]) != fold:
        raise LeakageError(
            f"fold {fold}: the translator is of fold {told['fold']} and may have seen patients that are tested here. "
            "Use each fold's own."
        )
    sites, net = list(told["classes"]), net.to(device)
    own = sites.index(home) if home else 0

    def translated(images: Images, number: int) -> Images:
        label = torch.full((len(images),), number, device=device)
        z = torch.zeros(len(images), as_generator(net).latent_dim, device=device)
        found: Images = sample(net, z, Condition(label=label, source=torch.from_numpy(images).to(device))).numpy()
        return found

    def harmonised(images: Images, site: np.ndarray) -> Images:
        at_home, images = site == sites[own], images.copy()
        if at_home.any():
            images[at_home] = translated(images[at_home], (own + 1) % len(sites))
        return translated(images, own)

    return harmonised
