"""Figures of memorisation that are worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.compute import Hardware
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.privacy import near_search
from pipeline.privacy.attack import Images
from pipeline.privacy.memorisation import authenticity, distance_ratio
from pipeline.privacy.near_search import NearSearch

SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")


def stored(images: np.ndarray) -> DataSet:
    return DataSet(Path("set"), pd.DataFrame(index=range(len(images))), images.astype(np.float32), SCALING)


def test_an_image_is_authentic_further_from_its_neighbour_than_that_one_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training images of one voxel: 0, 0.1 and 1. 0.04 and 0.6 lie nearer to 0 and 1 than 0.1 does; 0.5 lies 0.4 from
    0.1, which has a neighbour at 0.1."""
    train, queries = np.array([0.0, 0.1, 1.0]), np.array([0.04, 0.5, 0.6])
    real = stored(np.array([9.0, *train]).reshape(-1, 1, 1, 1))
    to_train = np.abs(queries[:, None] - train)
    assert authenticity(to_train, real, np.array([1, 2, 3])) == pytest.approx(1 / 3)
    monkeypatch.setattr(near_search, "_VALUES", 1)  # one image at a time
    assert authenticity(to_train, real, np.array([1, 2, 3])) == pytest.approx(1 / 3)


def test_the_distance_ratio_is_of_equally_many_images() -> None:
    """One held-out image a class at 2 and 4; of each class's two training images, both at 1 and 3, one is drawn. The
    nearest are 1 and 2, whatever the other class."""
    label = np.array(["a", "a", "b", "b"])
    to_train = np.tile([1.0, 1.0, 3.0, 3.0], (5, 1))
    to_held_out = np.tile([2.0, 4.0], (5, 1))
    ratio = distance_ratio(to_train, to_held_out, label, np.array(["a", "b"]), np.random.default_rng(0))
    assert ratio == pytest.approx(0.5)
    assert distance_ratio(0 * to_train, to_held_out, label, np.array(["a", "b"]), np.random.default_rng(0)) == 0


def test_a_likeness_is_the_smaller_of_two_distances_in_units_of_held_out_images() -> None:
    random = np.random.default_rng(1)
    known, held_out = (stored(random.uniform(-0.9, 0.9, (12, 1, 8, 8))) for _ in range(2))
    mirrored, grainy = known.images[:1, ..., ::-1], known.images[:1] + 0.05 * random.standard_normal((1, 1, 8, 8))
    shown = stored(np.concatenate([mirrored, grainy]))
    sets = [Images(one, np.arange(len(one.images))) for one in (shown, known, held_out)]
    search = NearSearch(sets[1], sets[2], len(sets[0]), Hardware("cpu", "float32"), 0)
    found, usual = search.among_known(sets[0]), search.usual
    np.testing.assert_array_equal(found.which, [0, 0])
    assert found.distance[0] == pytest.approx(0, abs=1e-3)  # registered
    plain = np.sqrt(((grainy - known.images[:1]) ** 2).mean())
    held = [np.sqrt(((one - known.images) ** 2).mean(axis=(1, 2, 3))).min() for one in held_out.images]
    assert found.distance[1] <= plain / np.median(held) + 1e-6 and found.distance[1] < 0.25
    assert 0.9 < np.median(usual.distance) <= 1
