"""How far an image lies from normal ones in the discriminator's middle layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.anomaly.corruptions import corrupted
from pipeline.anomaly.detector import DetectorFacts, ImageSet, Normals
from pipeline.anomaly.discriminator import OnDiscriminator, pooled
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.neighbours import mahalanobis, nearest, shrunk_gaussian
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.measures.classification import weighted_auroc

_NEIGHBOURS = 3
_TRIED_ON = 200
"""Validation normals on which layers are compared, at most."""
_RULES = ("mahalanobis", "nearest")


class LayerDistances(OnDiscriminator):
    """Mahalanobis distance, or the mean distance to the three nearest, in one layer's means over its grid.

    Layer and rule are those that tell spoilt copies of validation normals (cut-pasted, with blobs) from the normals
    themselves best: no label is read and no abnormal image seen. The copies need not look like disease, so the choice
    may be poor where disease changes texture alone.
    """

    choice: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        train = self._layers_of(enough(normals.train))
        spoilt_auroc = self._tried(train, normals.val)
        layer, rule = np.unravel_index(int(spoilt_auroc.argmax()), spoilt_auroc.shape)
        self._keep(train[layer], int(layer), int(rule))
        found = {"layer": int(layer), "layers": len(train), "rule": _RULES[rule]}
        return found | {"spoilt_auroc": float(spoilt_auroc.max())}

    def score(self, images: Tensor) -> Tensor:
        layer, rule = self.choice.tolist()
        return self._distance(pooled(self.layers(images))[layer], rule, self._reference)

    def _keep(self, vectors: Tensor, layer: int, rule: int) -> None:
        first, second = self._fitted(vectors, rule)
        self.keep(choice=torch.tensor([layer, rule]), first=first, second=second)

    @property
    def _reference(self) -> tuple[Tensor, Tensor]:
        return self.get_buffer("first"), self.get_buffer("second")

    @staticmethod
    def _fitted(vectors: Tensor, rule: int) -> tuple[Tensor, Tensor]:
        """What a rule keeps of the normals' vectors."""
        return shrunk_gaussian(vectors) if rule == 0 else (vectors, vectors.std(dim=0).clamp_min(1e-6))

    @staticmethod
    def _distance(vectors: Tensor, rule: int, reference: tuple[Tensor, Tensor]) -> Tensor:
        first, second = reference
        if rule == 0:
            return mahalanobis(vectors, first, second)
        return nearest(vectors / second, first / second, _NEIGHBOURS)[0].mean(dim=1)

    def _layers_of(self, images: ImageSet) -> list[Tensor]:
        """Pooled activations of all images, layer by layer."""
        return _joined([pooled(self.layers(block)) for block in images.blocks()])

    def _tried(self, train: list[Tensor], val: ImageSet) -> np.ndarray:
        """AUROC of spoilt copies against the validation normals themselves, [layers, rules]."""
        random = np.random.default_rng(self.setting.seed)
        chosen = random.permutation(len(val))[:_TRIED_ON]
        kept = ImageSet(val.dataset, val.rows[np.sort(chosen)])
        draws = Draws(torch.Generator().manual_seed(derive_seed(self.setting.seed, "corruptions")))
        real = self._layers_of(kept)
        fakes = _joined([pooled(self.layers(corrupted(block, draws))) for block in kept.blocks()])
        found = np.zeros((len(train), len(_RULES)))
        for layer, vectors in enumerate(train):
            for rule in range(len(_RULES)):
                reference = self._fitted(vectors, rule)
                scores = [self._distance(one[layer], rule, reference) for one in (real, fakes)]
                found[layer, rule] = _auroc(*scores)
        return found


def _joined(blocks: list[list[Tensor]]) -> list[Tensor]:
    """Layer by layer, the blocks one after the other."""
    return [torch.cat(parts) for parts in zip(*blocks, strict=True)]


def _auroc(normal: Tensor, spoilt: Tensor) -> float:
    score = torch.cat([normal, spoilt]).numpy()
    positive = np.arange(len(score)) >= len(normal)
    return float(weighted_auroc(score, positive, np.ones((1, len(score))))[0])


DETECTOR = DetectorFacts(
    "gan", "Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016 (the features); layer by layer as "
    "Rippel et al., ICPR 2020", LayerDistances, needs_gan=True,
)  # fmt: skip
