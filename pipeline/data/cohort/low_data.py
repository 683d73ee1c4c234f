"""Low-data settings: how many training images a class, or a cell of site and class, in how many disjoint draws, and
what becomes of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import pandas as pd

from pipeline.config.data import SplitConfig
from pipeline.config.section import Section
from pipeline.core.errors import DataError
from pipeline.data.cohort.assignment import cut_to, disjoint_draws
from pipeline.data.cohort.cells import cell_name, cells_named

Assignment = dict[str, str]
"""The split of every image of a fold."""


class LowData(Section):
    """What decides how much of a fold is used. `seed` is the experiment's.

    Attributes:
        site: the manifest's column of the site; "" = there is none.
        cells: site -> class -> training images.
        unlabelled: sites whose training and validation images lose their labels, but for those that `cells` asks for.
    """

    split: SplitConfig
    per_class: dict[str, int] | None
    site: str = ""
    cells: dict[str, dict[str, int]] | None = None
    unlabelled: tuple[str, ...] = ()
    surplus: Literal["unused", "unlabelled"]
    seed: int

    @property
    def key(self) -> str:
        """The configuration's, for messages."""
        return "data.train_per_class" if self.cells is None else "data.correlation"


def low_data(
    config: LowData, kept: pd.DataFrame, fold: Assignment, number: int, rounds: Mapping[str, int] | None = None
) -> list[Assignment]:
    """With `train_per_class`: exactly that many training images a class, and at most that many to validate.

    With `correlation` the same of every cell of site and class; val is cut to the largest set of these proportions that
    its images allow, every cell rounded up. Several draws become several folds, which have val and test in common.

    An unlabelled site has no images in val, so that thresholds and choices never ask for its labels.

    Args:
        rounds: as of `cut_to`.
    """
    wanted, by_cell = config.per_class, kept
    if config.cells is not None:
        wanted = {cell_name(site, label): n for site, row in config.cells.items() for label, n in row.items()}
        by_cell = kept.assign(label=cells_named(kept, config.site))
    sides = kept["image_id"].map(fold)
    hidden = _of_unlabelled_sites(config, kept) & sides.isin(["train", "val"])
    archive = dict.fromkeys(kept["image_id"][hidden], "unlabelled")
    if wanted is None:
        return [fold | archive]
    seen = hidden if config.cells is None else hidden & (sides == "val")
    train, val = (by_cell[(sides == side) & ~seen] for side in ("train", "val"))
    _require_enough(config, wanted, train["label"].value_counts(), number)
    most = wanted if config.cells is None else _in_proportion(wanted, val["label"].value_counts())
    validate = cut_to(val, most, config.seed, "val", number, rounds=rounds)
    base = fold | {image: "unused" for image in val["image_id"] if image not in validate} | archive
    numbers = range(number, number + config.split.draws)
    draws = disjoint_draws(train, wanted, numbers, config.seed, "train", rounds=rounds)
    if len(draws) < config.split.draws:
        raise DataError(
            f"data.split.draws asks for {config.split.draws} training sets that share no patient, but the training "
            f"patients suffice for {len(draws)} at {config.key} {_as_text(wanted)}. Ask for fewer "
            "draws or images, or make val and test smaller."
        )
    left = {image: archive.get(image, config.surplus) for image in train["image_id"]}
    return [base | left | dict.fromkeys(draw, "train") for draw in draws]


def _of_unlabelled_sites(config: LowData, kept: pd.DataFrame) -> pd.Series:
    if not config.unlabelled:
        return pd.Series(False, index=kept.index)
    return kept[config.site].isin(config.unlabelled)


def _in_proportion(wanted: Mapping[str, int], there: pd.Series) -> dict[str, int]:
    """The largest set in these proportions that is there, a cell's number rounded up and at most as asked; a cell that
    is not there at all is left out."""
    share = min([1.0, *(there[name] / number for name, number in wanted.items() if number and name in there)])
    return {name: math.ceil(share * number) for name, number in wanted.items()}


def _require_enough(config: LowData, wanted: Mapping[str, int], counts: pd.Series, number: int) -> None:
    short = {name: int(counts.get(name, 0)) for name, least in wanted.items() if counts.get(name, 0) < least}
    if short:
        has = ", ".join(f"{count} of {name}" for name, count in short.items())
        raise DataError(
            f"{config.key} asks for {_as_text(wanted)} training images{' a class' * (config.cells is None)}, but fold "
            f"{number} has only {has}. Ask for fewer, or make val and test smaller."
        )


def _as_text(per_class: Mapping[str, int]) -> str:
    """`50`, or `normal: 200, pneumonia: 20`."""
    same = len(set(per_class.values())) == 1
    return str(max(per_class.values())) if same else ", ".join(f"{name}: {count}" for name, count in per_class.items())
