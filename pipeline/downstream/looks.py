"""How an arm sees every image, in training, validation and test alike: the data set through a transform of intensities.

What a transform is fitted on are the fold's training and unlabelled images; no label is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.config.arm_facts import Look
from pipeline.core.files import atomic_path
from pipeline.core.seeds import numpy_generator
from pipeline.data.batches.dataset import DataSet, new_array
from pipeline.data.batches.intensities import (
    Images,
    distribution,
    equalised,
    matched,
    recentred,
    standardised,
    with_amplitudes,
)
from pipeline.data.batches.scaling import Scaling

_SEEN = Scaling(scale=1.0, offset=0.0, unit="none", window=(-1.0, 1.0), dtype="float16")
_BLOCK = 128
_MOST_REFERENCES = 1000
"""Target images whose distribution the others' are matched to, at most, drawn by lot."""


@dataclass(frozen=True)
class Seen:
    """A fold's images, of which some may be learnt from.

    Attributes:
        dataset: all images of the run.
        site: [N] the site of each image.
        learnt: positions of the training and unlabelled images.
        target: those of them that are of an unlabelled site.
        seed: of what is drawn.
        harmonise: images [B, C, *spatial] and their sites -> the images at one site; None = there is no translator.
    """

    dataset: DataSet
    site: np.ndarray
    learnt: np.ndarray
    target: np.ndarray
    seed: int
    harmonise: Callable[[Images, np.ndarray], Images] | None = None

    def tensor(self, rows: np.ndarray) -> Images:
        found: Images = self.dataset.tensor(rows).numpy()
        return found

    @property
    def foreign(self) -> np.ndarray:
        """[N] whether an image is of another site than the target images."""
        return ~np.isin(self.site, np.unique(self.site[self.target]))


Transform = Callable[[np.ndarray], Images]
"""Positions of images -> the images as they are seen, [B, C, *spatial] in [-1, 1]."""


def _standardised(seen: Seen) -> Transform:
    return lambda rows: standardised(seen.tensor(rows))


def _equalised(seen: Seen) -> Transform:
    return lambda rows: equalised(seen.tensor(rows))


def _matched(seen: Seen) -> Transform:
    """Images of other sites get the distribution of the target images; these stay as they are."""
    drawn = numpy_generator(seen.seed, "references").permutation(seen.target)[:_MOST_REFERENCES]
    reference = distribution(seen.tensor(drawn))
    return lambda rows: _of_others(seen, rows, lambda images, others: matched(images, reference))


def _fourier(seen: Seen) -> Transform:
    """Images of other sites get amplitudes of a target image each, drawn once; the target's stay as they are."""
    partner = numpy_generator(seen.seed, "partners").choice(seen.target, len(seen.site))
    return lambda rows: _of_others(
        seen, rows, lambda images, others: with_amplitudes(images, seen.tensor(partner[others]))
    )


def _of_others(seen: Seen, rows: np.ndarray, change: Callable[[Images, np.ndarray], Images]) -> Images:
    images, foreign = seen.tensor(rows), seen.foreign[rows]
    if foreign.any():
        images[foreign] = change(images[foreign], rows[foreign])
    return images


def _site_centred(seen: Seen) -> Transform:
    """The mean image of the site goes, the mean over sites comes; a site that was not learnt from has that already."""
    names = np.unique(seen.site[seen.learnt])
    means: dict[str, Images] = {str(name): _mean(seen, seen.learnt[seen.site[seen.learnt] == name]) for name in names}
    common: Images = np.mean(list(means.values()), axis=0)

    def transform(rows: np.ndarray) -> Images:
        own = np.stack([means.get(name, common) for name in seen.site[rows]])
        return recentred(seen.tensor(rows), own, common)

    return transform


def _mean(seen: Seen, rows: np.ndarray) -> Images:
    total = sum(block.numpy().sum(axis=0, dtype=np.float64) for block in seen.dataset.blocks(rows))
    return np.asarray(total / len(rows))


def _harmonised(seen: Seen) -> Transform:
    harmonise = seen.harmonise
    assert harmonise is not None, "the look `harmonised` needs a translator"
    return lambda rows: harmonise(seen.tensor(rows), seen.site[rows])


LOOKS: dict[Look, Callable[[Seen], Transform]] = {
    "standardised": _standardised,
    "equalised": _equalised,
    "matched": _matched,
    "fourier": _fourier,
    "site_centred": _site_centred,
    "harmonised": _harmonised,
}


def seen_through(look: Look, seen: Seen, path: Path) -> DataSet:
    """The whole data set as `look` shows it, kept at `path` in float16 for other processes; made where it is not."""
    if not path.is_file():
        transform, size = LOOKS[look](seen), len(seen.site)
        with atomic_path(path) as temporary:
            made = new_array(temporary, np.float16, seen.dataset.images.shape)
            for start in range(0, size, _BLOCK):
                rows = np.arange(start, min(size, start + _BLOCK))
                made[rows] = transform(rows)
            made.flush()
    return replace(seen.dataset, images=np.load(path, mmap_mode="r", allow_pickle=False), scaling=_SEEN)
