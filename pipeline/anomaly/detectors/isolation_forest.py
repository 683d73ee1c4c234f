"""How few random cuts set an image apart (Isolation Forest; Liu, Ting & Zhou, ICDM 2008), by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.anomaly.detector import Detector, DetectorFacts, Normals
from pipeline.anomaly.thumbnails import thumbnails, thumbnails_of

_TREES = 100
_IMAGES_A_TREE = 256
"""Both as the paper has them."""
_NONE = -1
"""In place of a child, where there is none."""


class IsolationForest(Detector):
    """On thumbnails. The score is the paper's, 2^(-mean path / expected path): near 1 for what is soon alone.

    scikit-learn grows the trees; they are kept as tables and read without it, so that nothing is pickled.
    """

    feature: Tensor
    threshold: Tensor
    below: Tensor
    above: Tensor
    path: Tensor
    expected: Tensor

    def fit(self, normals: Normals) -> dict[str, Any]:
        from sklearn.ensemble import IsolationForest as Forest

        vectors = thumbnails_of(normals.train).numpy()
        seed = self.setting.seed % 2**32  # what scikit-learn takes
        grown = Forest(n_estimators=_TREES, max_samples=min(_IMAGES_A_TREE, len(vectors)), random_state=seed)
        grown.fit(vectors)
        trees = [tree.tree_ for tree in grown.estimators_]
        self.keep(
            feature=_table([np.maximum(tree.feature, 0) for tree in trees]),
            threshold=_table([tree.threshold for tree in trees]),
            below=_table([_child(tree, tree.children_left) for tree in trees]),
            above=_table([_child(tree, tree.children_right) for tree in trees]),
            path=_table([_paths(tree) for tree in trees]),
            expected=torch.from_numpy(expected_path(np.array([grown.max_samples_]))),
        )
        return {"cells": vectors.shape[1], "trees": _TREES}

    def score(self, images: Tensor) -> Tensor:
        vectors, trees = thumbnails(images), torch.arange(_TREES)
        node, before = torch.zeros(len(vectors), _TREES, dtype=torch.int64), None
        while before is None or not node.equal(before):
            before = node
            value = vectors.gather(1, self.feature[trees, node]).double()
            is_below = value <= self.threshold[trees, node]
            node = torch.where(is_below, self.below[trees, node], self.above[trees, node])
        return torch.exp2(-self.path[trees, node].mean(dim=1) / self.expected).float()


def expected_path(images: np.ndarray) -> np.ndarray:
    """Mean length of an unsuccessful search in a binary tree of so many images, c(n) of the paper (their eq. 1)."""
    number = np.maximum(images.astype(float), 2.0)
    harmonic = np.log(np.maximum(number - 1, 1.0)) + np.euler_gamma
    return np.where(images <= 1, 0.0, np.where(images == 2, 1.0, 2 * harmonic - 2 * (number - 1) / number))


def _child(tree: Any, children: np.ndarray) -> np.ndarray:
    """The child of each node; a leaf is its own."""
    return np.where(children == _NONE, np.arange(tree.node_count), children)


def _paths(tree: Any) -> np.ndarray:
    """Length of the path to each node, as if the images that share it went on being cut apart."""
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # a parent stands before its children
        for child in (tree.children_left[node], tree.children_right[node]):
            if child != _NONE:
                depth[child] = depth[node] + 1
    return depth + expected_path(tree.n_node_samples)


def _table(rows: list[np.ndarray]) -> Tensor:
    """Rows of different length one below the other, [rows, longest], filled up with zeros."""
    table = np.zeros((len(rows), max(map(len, rows))), dtype=rows[0].dtype)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(table)


DETECTOR = DetectorFacts(
    "plain", "Liu, Ting & Zhou, Isolation Forest, ICDM 2008; scikit-learn", IsolationForest,
    note="on images averaged down to 16 x 16 (8 x 8 x 8)",
)  # fmt: skip
