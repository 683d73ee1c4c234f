"""Whether so many patients are enough for so small an ε, told before anything is trained.

A noisy mean of N clipped gradients has in every weight a noise of σC/N where all N are looked at. Over T looks that
cost (ε, δ) together, σ is √T times that of one look, and looks at fewer patients at a time have more noise, not less
(Räisä et al., "Subsampling is not Magic", ICML 2024). So √T σ₁(ε, δ) / N is the least noise over batch, σ/B, that any
batch size reaches. Against it stands a mean gradient whose norm, of all weights together, is C at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.adversarial.private.budget import delta_of
from pipeline.config.dp import DpConfig
from pipeline.core.errors import DataError
from pipeline.measures.accounting import gaussian_noise

NEEDED_MOVES = 10_000
"""Moves of a discriminator that a GAN is reckoned to need; who plans more is reckoned with those."""
PATIENTS, EPSILONS = (200, 750, 4_700, 20_000, 60_000), (1.0, 3.0, 10.0)
_LIMITS = ((0.003, "easy"), (0.03, "blurred"), (0.15, "only with public pre-training"))
REFUSED = "refused"


@dataclass(frozen=True)
class Feasibility:
    """`least`: the smallest noise over batch; `word`: what is to be expected of it."""

    least: float
    word: str


def feasibility(epsilon: float, delta: float, patients: int, moves: int = NEEDED_MOVES) -> Feasibility:
    """Of a training of `moves` noisy looks, or of as many as a GAN needs."""
    least = max(moves, NEEDED_MOVES) ** 0.5 * gaussian_noise(epsilon, delta) / patients
    return Feasibility(least, next((word for limit, word in _LIMITS if least < limit), REFUSED))


def feasibility_table(epsilons: Sequence[float] = EPSILONS, patients: Sequence[int] = PATIENTS) -> list[dict[str, str]]:
    """For every number of patients, with δ of a tenth of 1 / patients: least noise over batch, and what to expect."""
    rows = []
    for number in patients:
        cells = {f"ε = {one:g}": feasibility(one, 1 / (10 * number), number) for one in epsilons}
        rows.append({"patients": f"{number:,}"} | {name: f"{at.least:.4f} {at.word}" for name, at in cells.items()})
    return rows


def require_feasible(dp: DpConfig, patients: int, moves: int) -> Feasibility:
    """What to expect of this training.

    Raises:
        DataError: of so few patients nothing but noise would be learned.
    """
    found = feasibility(dp.epsilon, delta_of(dp, patients), patients, moves)
    if found.word == REFUSED:
        table = "\n".join("  ".join(f"{name}: {cell}" for name, cell in row.items()) for row in feasibility_table())
        raise DataError(
            f"gan.dp.epsilon: {dp.epsilon:g} with {patients} training patients leaves a noise over batch of "
            f"{found.least:.2f} at least; from {_LIMITS[-1][0]:g} on a discriminator learns nothing but noise. More "
            "patients are needed, or a larger gan.dp.epsilon; gan.family: dp-merf looks once, and needs fewer "
            f"patients.\n{table}"
        )
    return found
