"""A net that tells whether two images are of one patient, taught by patients of whom there are several images.

After Packhäuser et al., "Deep learning-based patient re-identification is able to exploit the biometric nature of
medical chest X-ray data", Scientific Reports 12 (2022), with a small net and a contrastive loss for few patients.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.config.augment import AugmentConfig
from pipeline.core.compute import Hardware
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.privacy.likeness_net import LikenessNet
from pipeline.supervised.loop import minimise
from pipeline.supervised.losses import nt_xent

_STEPS, _PATIENTS, _TEMPERATURE = 200, 64, 0.2
_LR, _WEIGHT_DECAY = 3e-3, 1e-2
_CHANGES = AugmentConfig(brightness=0.3, contrast=0.4, shift=0.1, rotate_degrees=10, scale=0.1, noise=0.1)


def fit_same_patient_net(images: Tensor, patient: np.ndarray, hardware: Hardware, seed: int) -> LikenessNet:
    """Train so that the cosine of two images' embeddings is large where they are of one patient.

    A batch has two images of each of some patients; those of a patient shall find each other among all others.

    Args:
        images: [N, C, *grid], averaged down.
        patient: [N] numbers; patients with one image alone are left out, and two or more must have several.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    own = [np.flatnonzero(patient == one) for one in np.unique(patient)]
    several = [rows for rows in own if len(rows) > 1]
    assert len(several) > 1, "pairs need patients with several images"
    choice = numpy_generator(seed, "pairs")
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "views")))
    augment, known = Augmenter(_CHANGES), images.to(hardware.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = LikenessNet(images.shape[1], tuple(images.shape[2:])).to(hardware.device)

    def loss(_: int) -> Tensor:
        some = choice.permutation(len(several))[:_PATIENTS]
        pairs = torch.from_numpy(np.array([choice.permutation(several[one])[:2] for one in some])).to(hardware.device)
        one, two = (net(augment(known[side], draws)) for side in pairs.T)
        return nt_xent(one, two, _TEMPERATURE)

    minimise(loss, net.parameters(), steps=_STEPS, lr=_LR, weight_decay=_WEIGHT_DECAY, what="the same-patient net")
    return net.eval()
