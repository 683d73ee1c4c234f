"""What noise costs: ε of noisy sums over patients, spent by accountants of Opacus or by an exact formula.

Two sets of patients are neighbours where one of them has one patient more. A *noise multiplier* is the noise's standard
deviation in units of how far one patient can move the sum. Opacus is imported where it is used: nobody else waits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from scipy.special import log_ndtr, ndtr

_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(12, 64), 80, 96, 128, 192, 256, 384, 512)
_TIGHT = 1e-4
"""Relative width at which a search by halves ends."""
_MOST_NOISE = 1e6


@dataclass(frozen=True)
class Spent:
    """ε at a fixed δ, by two accountants.

    Attributes:
        rdp: by Rényi divergences (Mironov 2017; Mironov et al. 2019).
        prv: by the composed privacy loss itself, its upper bound (Gopi et al., NeurIPS 2021).
    """

    rdp: float
    prv: float

    @property
    def quoted(self) -> float:
        """The larger one: a mistake in one accountant alone promises nothing too small."""
        return max(self.rdp, self.prv)

    @property
    def accountant(self) -> str:
        """The name of the one that is quoted."""
        return "RDP" if self.rdp >= self.prv else "PRV"


def spent(noise: float, rate: float, steps: int, delta: float) -> Spent:
    """ε after `steps` noisy sums, each over patients who were drawn with chance `rate`, every one by himself.

    Args:
        noise: noise multiplier of each sum.
        rate: above 0 and below 1 (Poisson sampling).
    """
    if not steps:
        return Spent(0.0, 0.0)
    return Spent(_rdp_epsilon(_rdp(noise, rate), steps, delta), _prv_epsilon(noise, rate, steps, delta))


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier at which `steps` sums cost at most `epsilon`, by either accountant."""
    noise = smallest(lambda noise: _rdp_epsilon(_rdp(noise, rate), steps, delta) <= epsilon)
    while _prv_epsilon(noise, rate, steps, delta) > epsilon:
        noise *= 1.01
    return noise


def steps_for(epsilon: float, delta: float, noise: float, rate: float, most: int) -> int:
    """How many sums, `most` at most, cost `epsilon` or less by either accountant."""
    rdp = _rdp(noise, rate)
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _rdp_epsilon(rdp, middle, delta) <= epsilon else (low, middle - 1)
    while low and _prv_epsilon(noise, rate, low, delta) > epsilon:
        low = int(low * 0.99)
    return low


def gaussian_delta(epsilon: float, noise: float) -> float:
    """δ of ONE noisy sum over all patients, exactly.

    Balle & Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8.
    """
    first = ndtr(1 / (2 * noise) - epsilon * noise)
    return float(first - math.exp(epsilon + log_ndtr(-1 / (2 * noise) - epsilon * noise)))


def gaussian_noise(epsilon: float, delta: float) -> float:
    """The smallest noise multiplier at which one noisy sum is (ε, δ)-private."""
    return smallest(lambda noise: gaussian_delta(epsilon, noise) <= delta)


def gaussian_epsilon(noise: float, delta: float) -> float:
    """ε of one noisy sum at δ."""
    return smallest(lambda epsilon: gaussian_delta(epsilon, noise) <= delta)


def smallest(holds: Callable[[float], bool]) -> float:
    """The smallest positive number from which on `holds` is true, from above, to a relative 1e-4.

    Raises:
        ValueError: there is none up to a million.
    """
    high = 1.0
    while not holds(high):
        high *= 2
        if high > _MOST_NOISE:
            raise ValueError("no finite noise keeps this budget")
    low = high / 2
    while low > 1 / _MOST_NOISE and holds(low):
        low, high = low / 2, low
    while high - low > _TIGHT * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@cache
def _rdp(noise: float, rate: float) -> Sequence[float]:
    """Rényi divergence of one sum at every order."""
    from opacus.accountants.analysis.rdp import compute_rdp

    found: Sequence[float] = compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=_ORDERS)
    return found


def _rdp_epsilon(rdp: Sequence[float], steps: int, delta: float) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with _loose_bounds():
        epsilon, _ = get_privacy_spent(orders=_ORDERS, rdp=steps * rdp, delta=delta)  # type: ignore[operator]
    return float(epsilon)


@cache
def _prv_epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    with _loose_bounds():
        return float(accountant.get_epsilon(delta))


@contextmanager
def _loose_bounds() -> Iterator[None]:
    """Without Opacus's warning that the best order is the last one: such a bound is loose, and holds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        yield
