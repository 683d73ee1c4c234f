"""How far an image lies from normal ones in a middle layer of the discriminator, place by place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.anomaly.choice import aucp, halves, mix_without, some_of
from pipeline.anomaly.detector import DetectorFacts, ImageSet, Normals, Setting
from pipeline.anomaly.discriminator import OnDiscriminator
from pipeline.anomaly.frozen import enough
from pipeline.anomaly.maps import spread_over
from pipeline.core.seeds import numpy_generator

_NEIGHBOURS = 3
_SIDE = {2: 16, 3: 8}
"""Places of a layer's grid along an axis, at most; finer ones are averaged."""
_MOST = 500
"""Normal images that are kept, and mixed images that a choice looks at, at most."""
_LEAST_SPREAD = 1e-6
RULES = ("nearest", "gaussian")


class LayerDistances(OnDiscriminator):
    """At every place of one layer's grid the mean distance to the three nearest normal images' vectors, or the mean
    squared distance from the normals' mean in their standard deviations; the score is the mean over places.

    Candidates are all layers of the finished discriminator and of the snapshots of its training (a GAN of normal
    patients has some), by both rules. That one is taken whose `aucp` is largest: half of the training normals to learn
    from, the other half against the unlabelled mix. No validation image is looked at, and no label beyond who is known
    to be normal. Where the fold has normal patients alone it is the middle layer of the earliest discriminator, by
    nearest neighbours.
    """

    choice: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._nets = [*self.snapshots(), self.net]

    def fit(self, normals: Normals) -> dict[str, Any]:
        train = some_of(enough(normals.train), _MOST, numpy_generator(self.setting.seed, "kept"))
        net, layer, rule, value = self._best(train, normals)
        first, second = _LEARN[RULES[rule]](self._vectors(net, train)[layer])
        self.keep(choice=torch.tensor([net, layer, rule]), first=first, second=second)
        chosen = {"discriminator": net + 1, "discriminators": len(self._nets), "layer": layer + 1, "rule": RULES[rule]}
        return chosen | ({} if value is None else {"aucp": round(value, 4)})

    def score(self, images: Tensor) -> Tensor:
        return self._distances(images).flatten(1).mean(dim=1)

    def map(self, images: Tensor) -> Tensor:
        return spread_over(self._distances(images), images.shape[2:])

    def _distances(self, images: Tensor) -> Tensor:
        """[B, *grid]."""
        net, layer, rule = self.choice.tolist()
        return _MEASURE[RULES[rule]](self._at_places(self._nets[net], images)[layer], self.first, self.second)

    def _best(self, train: ImageSet, normals: Normals) -> tuple[int, int, int, float | None]:
        """Discriminator, layer and rule, and their `aucp`, if there was a mix to choose by."""
        random = numpy_generator(self.setting.seed, "choice")
        learned, compared = halves(train, random)
        mix = mix_without(normals, learned)
        if mix is None:
            return 0, len(self._vectors(0, some_of(train, 1, random))) // 2, 0, None
        mix, found = some_of(mix, _MOST, random), list[tuple[float, int, int, int]]()
        for net in range(len(self._nets)):
            layers = zip(*(self._vectors(net, images) for images in (learned, compared, mix)), strict=True)
            for layer, (own, normal, mixed) in enumerate(layers):
                for rule, name in enumerate(RULES):
                    kept = _LEARN[name](own)
                    scores = [_MEASURE[name](one, *kept).flatten(1).mean(dim=1) for one in (normal, mixed)]
                    found.append((aucp(scores[0], scores[1]), -net, -layer, -rule))
        value, net, layer, rule = max(found)  # of equals the earliest
        return -net, -layer, -rule, value

    def _vectors(self, net: int, images: ImageSet) -> list[Tensor]:
        """Activations of all images, layer by layer, [N, D, *grid] each."""
        found = [self._at_places(self._nets[net], block) for block in images.blocks()]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _at_places(self, net: nn.Module, images: Tensor) -> list[Tensor]:
        """Each layer's activations on a grid of bounded size, [B, D, *grid]; a vector is a grid of one place."""
        dims = self.setting.shape.spatial_dims
        average: Any = nn.functional.adaptive_avg_pool2d if dims == 2 else nn.functional.adaptive_avg_pool3d
        found = [one if one.ndim > 2 else one.view(*one.shape, *[1] * dims) for one in self.layers(images, net)]
        return [average(one, [min(side, _SIDE[dims]) for side in one.shape[2:]]) for one in found]


def _kept_as_they_are(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return vectors, torch.empty(0)


def _mean_and_spread(vectors: Tensor) -> tuple[Tensor, Tensor]:
    return vectors.mean(dim=0), vectors.std(dim=0).clamp_min(_LEAST_SPREAD)


def _to_nearest(vectors: Tensor, bank: Tensor, _: Tensor) -> Tensor:
    """[B, D, *grid] and [m, D, *grid] -> [B, *grid]."""
    ours, theirs = (one.flatten(2).permute(2, 0, 1) for one in (vectors, bank))
    found = [  # by differences: matrix products would lose digits, others for each size of batch
        torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
        .topk(min(_NEIGHBOURS, len(bank)), dim=1, largest=False)
        .values.mean(dim=1)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return torch.stack(found, dim=1).view(len(vectors), *vectors.shape[2:])


def _squared_deviation(vectors: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    return ((vectors - mean) / spread).square().mean(dim=1)


_LEARN: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "nearest": _kept_as_they_are, "gaussian": _mean_and_spread,
}  # fmt: skip
_MEASURE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "nearest": _to_nearest, "gaussian": _squared_deviation,
}  # fmt: skip

DETECTOR = DetectorFacts(
    "gan", "Schlegl et al., f-AnoGAN, Medical Image Analysis 2019 (its discriminator features); place by place as in "
    "Defard et al., PaDiM, ICPR workshops 2021", LayerDistances, says_where=True, needs_gan=True,
    note="layer and snapshot are chosen on an unlabelled mix, by chance where abnormal images are rare in it; @run has "
    "no snapshots, and the finished discriminator's layers are the worst",
)  # fmt: skip
