"""How near is the nearest synthetic image in the features of a frozen network?"""

from __future__ import annotations

import numpy as np
import torch

from pipeline.measures.coverage import nearest_distances
from pipeline.nets.extractors import EffNetLite0
from pipeline.privacy.attack import AttackFacts, Candidates, Images, Target


def scores(target: Target, candidates: Candidates) -> np.ndarray:
    """Less the distance to the nearest synthetic image in EfficientNet-Lite0's features, [N]."""
    extractor = EffNetLite0(target.device)

    def features(images: Images) -> np.ndarray:
        return torch.cat([extractor.extract(block) for block in images]).numpy()

    return -nearest_distances(features(target.synthetic), features(candidates.images), target.device)


ATTACK = AttackFacts(
    "Chen et al., GAN-Leaks, ACM CCS 2020, full black box, with EfficientNet-Lite0's features for a distance", scores,
    note="Of a volume the three middle planes are seen; the network knows photographs, not anatomy.",
)  # fmt: skip
