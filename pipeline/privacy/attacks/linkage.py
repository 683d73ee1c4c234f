"""Who holds another image of a patient than the one that a synthetic image comes from: does it lead there?"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.core.seeds import derive_seed
from pipeline.privacy.attack import AttackFacts, Candidates, Target, halves_of_patients
from pipeline.privacy.likeness_net import embedded
from pipeline.privacy.registered import averaged_down, registered_distances
from pipeline.privacy.same_patient import fit_same_patient_net

FEWEST = 10
"""Patients with several images, on which a net learns at least."""


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """How surely some synthetic image is of the patient, [N]; NaN for patients of whom there is one image alone.

    Synthetic images to which the candidate itself is the nearest of all candidates do not count: what is asked is
    whether another image of the patient leads to them. Whether two images are of one patient a net says that learned on
    the other half of the patients, members and unseen ones alike.
    """
    found, device = np.full(len(candidates), np.nan), target.device
    patients = np.bincount(candidates.patient, minlength=candidates.patient.max() + 1) > 1
    halves = halves_of_patients(candidates, target.seed)
    if min(len(set(candidates.patient[side & patients[candidates.patient]])) for side in (halves, ~halves)) < FEWEST:
        return found
    grids = torch.cat([averaged_down(block) for block in candidates.images])
    shown = torch.cat([averaged_down(block) for block in target.synthetic])
    source = registered_distances([shown], [grids], device).argmin(axis=1)
    for half in (halves, ~halves):
        learned = np.flatnonzero(~half)
        net = fit_same_patient_net(
            grids[learned], candidates.patient[learned], target.hardware, derive_seed(target.seed, "net", int(half[0]))
        )
        asked = np.flatnonzero(half & patients[candidates.patient])
        alike = embedded(net, [grids[asked]], device) @ embedded(net, [shown], device).T
        alike[torch.from_numpy(source[None] == asked[:, None])] = -1.0
        found[asked] = alike.amax(dim=1).double().numpy()
    return found


ATTACK = AttackFacts(
    "Packhäuser et al., Scientific Reports 12 (2022), re-identification of chest X-rays, by a net of the user's images",
    scores, note="Tries patients of whom there are several images; images of 32 pixels a side, volumes of 16.",
)  # fmt: skip
