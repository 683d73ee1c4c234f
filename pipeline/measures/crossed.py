"""Means over readers and images who are crossed: every reader read every image, and both are samples of many more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from pipeline.measures.resampling import Estimate, Interval, Spread, estimate

Part = tuple[float, np.ndarray]
"""A weight, and what each reader said of each image of one kind: [readers, images], such as 1 where it was right."""


@dataclass(frozen=True)
class Kind:
    """Images of one kind, such as the synthetic ones: their number and weight in the sum, and their scatter.

    Attributes:
        between: variance of an image's mean over all readers: some are hard for everybody.
        rest: variance of one reader's answer to one image beyond that.
    """

    weight: float
    images: int
    between: float
    rest: float


@dataclass(frozen=True)
class Crossed:
    """A weighted sum of means, and where its scatter comes from.

    Attributes:
        value: over all readers.
        by_reader: [readers] each reader's own.
        between_readers: variance of what a reader would have on endlessly many images.
    """

    value: float
    by_reader: np.ndarray
    between_readers: float
    kinds: tuple[Kind, ...]

    @property
    def images(self) -> int:
        return sum(kind.images for kind in self.kinds)

    def estimate(self) -> Estimate:
        """With its standard error over readers and images; with one reader, over images alone: it is of this reader."""
        readers = len(self.by_reader)
        scatter = float(np.var(self.by_reader, ddof=1)) / readers if readers > 1 else 0.0
        return estimate(self.value, [Spread(scatter, max(readers - 1, 1)), self._of_images(1.0)])

    def expected(self, readers: int, times: float) -> Estimate:
        """What `estimate` would have with `readers` (2 or more) and `times` as many images of each kind."""
        noise = sum(kind.weight**2 * kind.rest / (kind.images * times) for kind in self.kinds)
        return estimate(
            self.value, [Spread((self.between_readers + noise) / readers, readers - 1), self._of_images(times)]
        )

    def at_share(self, share: float) -> Crossed:
        """With the scatter that right and wrong answers have where `share` of them are right, as p (1 - p) goes."""
        times = share * (1 - share) / (self.value * (1 - self.value))
        kinds = (replace(kind, between=kind.between * times, rest=kind.rest * times) for kind in self.kinds)
        return replace(self, between_readers=self.between_readers * times, kinds=tuple(kinds))

    def _of_images(self, times: float) -> Spread:
        variance = sum(kind.weight**2 * kind.between / (kind.images * times) for kind in self.kinds)
        return Spread(variance, sum(kind.images * times - 1 for kind in self.kinds))


def crossed(parts: Sequence[Part]) -> Crossed:
    """The sum of weight x mean over `parts`, whose rows are the same readers.

    With one part the variance is that of the two-way table without repeats, (MS readers + MS images - MS rest) /
    (readers x images), which is unbiased (Gallas, Pennello & Myers, J. Opt. Soc. Am. A 24 (2007), for binary answers).
    With several, such as real and synthetic images, images scatter within their kind, and a reader who is biased
    towards one kind is seen as one in all of them.

    Args:
        parts: at least two images each.
    """
    by_reader = np.sum([weight * said.mean(axis=1) for weight, said in parts], axis=0)
    kinds = tuple(_kind(weight, np.asarray(said, dtype=np.float64)) for weight, said in parts)
    noise = sum(kind.weight**2 * kind.rest / kind.images for kind in kinds)
    between = float(np.var(by_reader, ddof=1)) - noise if len(by_reader) > 1 else 0.0
    return Crossed(float(by_reader.mean()), by_reader, max(between, 0.0), kinds)


def _kind(weight: float, said: np.ndarray) -> Kind:
    readers, images = said.shape
    of_images = said.mean(axis=0)
    scatter = float(np.var(of_images, ddof=1))
    if readers < 2:
        return Kind(weight, images, scatter, 0.0)
    rest = said - of_images - said.mean(axis=1, keepdims=True) + said.mean()
    mean_square = float(np.square(rest).sum()) / ((readers - 1) * (images - 1))
    return Kind(weight, images, max(scatter - mean_square / readers, 0.0), mean_square)


def share_interval(found: Crossed, alpha: float) -> Interval:
    """Interval of a share between 0 and 1: Wilson's, of the number of independent answers that would scatter as much.

    As for samples in clusters (Franco, Little, Louis & Slud, J. Surv. Stat. Methodol. 7 (2019)), with the t quantile of
    the error's degrees of freedom. Where all answers are alike nothing scatters, and each image counts once, however
    many read it.
    """
    from statsmodels.stats.proportion import proportion_confint

    share, error = found.value, found.estimate()
    number = float(found.images)
    if error.error > 0 and 0 < share < 1:
        ratio = float(ndtri(1 - alpha / 2) / stdtrit(error.freedom, 1 - alpha / 2))
        number = min(share * (1 - share) / error.error**2, len(found.by_reader) * number) * ratio**2
    low, high = proportion_confint(share * number, number, alpha, method="wilson")
    return Interval(share, float(low), float(high))


def difference_interval(first: Crossed, second: Crossed, alpha: float) -> Interval:
    """Interval of the difference of two shares that the same readers have on different images.

    From the intervals of both, with the correlation that comes from the readers (Zou & Donner, Stat. Med. 27 (2008)):
    it has a width where all answers are right, too.
    """
    one, other = share_interval(first, alpha), share_interval(second, alpha)
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    errors, readers = first.estimate().error * second.estimate().error, len(first.by_reader)
    together = float(np.cov(first.by_reader, second.by_reader)[0, 1]) / readers if readers > 1 else 0.0
    alike = float(np.clip(together / errors, -1, 1)) if errors else 0.0
    value = first.value - second.value
    below = _combined(one.value - one.low, other.high - other.value, alike)
    above = _combined(one.high - one.value, other.value - other.low, alike)
    return Interval(value, max(value - below, -1.0), min(value + above, 1.0))


def _combined(first: float, second: float, alike: float) -> float:
    return float(np.sqrt(max(first**2 + second**2 - 2 * alike * first * second, 0.0)))


def roc_parts(score: np.ndarray, positive: np.ndarray) -> tuple[Part, Part]:
    """The AUROC of scores [readers, images] as a sum of means, for `crossed`.

    Its parts are the placements of DeLong et al. (Biometrics 44 (1988)): for each positive image the share of negative
    ones that score lower, ties counted half, and the other way round. Each part's mean is a reader's AUROC, so the
    second one is given without it: parts sum to the AUROC, and scatter as it does.

    Args:
        positive: [images] bool.
    """
    above, below = score[:, positive, None], score[:, None, ~positive]
    wins = (above > below) + 0.5 * (above == below)  # [readers, positives, negatives]
    own = wins.mean(axis=(1, 2))
    return (1.0, wins.mean(axis=2)), (1.0, wins.mean(axis=1) - own[:, None])


def images_needed(found: Crossed, readers: int, difference: float, alpha: float, power: float = 0.8) -> int | None:
    """Images, divided into kinds as they are, with which `readers` see a true `difference` in `power` of studies.

    None where no number of images suffices: the readers differ too much among themselves.
    """

    def shown(times: float) -> float:
        made = found.expected(readers, times)
        return float(stdtrit(made.freedom, 1 - alpha / 2) + stdtrit(made.freedom, power)) * made.error

    low, high = max(2.0 * len(found.kinds), 4.0) / found.images, 1e5
    if shown(high) > difference:
        return None
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if shown(middle) > difference else (low, middle)
    return int(np.ceil(found.images * high))
