"""How often does the shift stage raise its alarm, where it is known what changed? Simulated livers, in 2D and 3D.

Run: .venv/bin/python benchmarks/shift_alarms.py [--draws 20]

A draw has 60 patients for reference and 40 new ones, one image each (32 voxels of 3 mm along each side, the liver's
edge in half of them). What changed is planted in every new image: the scanner's noise, kernel or brightness, or a
lesion 40 or 80 HU darker than the liver. New patients of a draw are the same under every change. A row an image type
and change goes to benchmarks/results/shift_alarms.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from pipeline.anomaly.shift import Acquired, acquired, shift_between
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import write_table
from pipeline.data.phantoms.planted import liver_patch
from pipeline.measures.resampling import wilson_interval

TABLE = Path(__file__).resolve().parent / "results" / "shift_alarms.csv"
REFERENCE, NEW = 60, 40
SPACING_MM = 3.0
CHANGES: dict[str, dict[str, float]] = {
    "nothing": {},
    **{f"noise x {factor}": {"noise_hu": 12.0 * factor} for factor in (1.12, 1.25, 1.5)},
    **{f"kernel x {factor}": {"blur": factor} for factor in (1.1, 1.2, 1.4)},
    **{f"{hu:g} HU brighter": {"brighter": hu} for hu in (5.0, 10.0, 15.0)},
    **{
        f"lesion of {wide:g} mm, {depth:g} HU": {"diameter_mm": wide, "contrast_hu": -depth}
        for depth in (40.0, 80.0)
        for wide in (8.0, 16.0, 24.0, 32.0)
    },
}
Dims = Literal[2, 3]


def livers(dims: Dims, draw: int, side: str, num: int, *, brighter: float = 0.0, **change: float) -> Acquired:
    """How `num` patients' images were acquired: [-60, 200] HU as [-1, 1]."""
    streams = [np.random.default_rng([draw, dims, side == "new", number]) for number in range(num)]
    images = np.stack([liver_patch(one, dims, spacing_mm=SPACING_MM, **change).image for one in streams])
    window = torch.from_numpy(images)[:, None].float().add(brighter + 60).div(130).sub(1).clamp(-1, 1)
    return acquired([window], np.arange(num))


def rows_of(dims: Dims, draws: int) -> list[dict[str, object]]:
    alarms = dict.fromkeys(CHANGES, 0)
    moved: dict[str, list[str]] = {name: [] for name in CHANGES}
    for draw in range(draws):
        reference = livers(dims, draw, "reference", REFERENCE)
        for name, change in CHANGES.items():
            found = shift_between(reference, livers(dims, draw, "new", NEW, **change), draw)
            alarms[name] += found.alarm
            moved[name] += found.moved
    rows: list[dict[str, object]] = []
    for name, count in alarms.items():
        low, high = wilson_interval(count, draws, 0.05)
        named = pd.Series(moved[name], dtype=str).value_counts()
        rows.append(
            {
                "spatial_dims": dims,
                "planted": name,
                "alarms": count,
                "draws": draws,
                "low": f"{low:.3f}",
                "high": f"{high:.3f}",
                "moved": "; ".join(f"{what} {times}" for what, times in named.items()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20)
    asked = parser.parse_args()
    use_threads(1)
    dims: tuple[Dims, ...] = (2, 3)
    table = pd.DataFrame([row for one in dims for row in rows_of(one, asked.draws)])
    write_table(TABLE, table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
