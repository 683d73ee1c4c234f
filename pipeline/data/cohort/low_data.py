"""Low-data settings: how many training images a class, in how many disjoint draws, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from pipeline.config.data import SplitConfig
from pipeline.config.section import Section
from pipeline.core.errors import DataError
from pipeline.data.cohort.assignment import cut_to, disjoint_draws

Assignment = dict[str, str]
"""The split of every image of a fold."""


class LowData(Section):
    """What decides how much of a fold is used. `seed` is the experiment's."""

    split: SplitConfig
    per_class: dict[str, int] | None
    surplus: Literal["unused", "unlabelled"]
    seed: int


def low_data(
    config: LowData, kept: pd.DataFrame, fold: Assignment, number: int, rounds: Mapping[str, int] | None = None
) -> list[Assignment]:
    """With `train_per_class`: exactly that many training images a class, and at most that many to validate.

    Several draws become several folds, which have val and test in common.

    Args:
        rounds: as of `cut_to`.
    """
    if config.per_class is None:
        return [fold]
    sides = kept["image_id"].map(fold)
    train, val = kept[sides == "train"], kept[sides == "val"]
    validate = cut_to(val, config.per_class, config.seed, "val", number, rounds=rounds)
    base = fold | {image: "unused" for image in val["image_id"] if image not in validate}
    _require_enough(config, train["label"].value_counts(), number)
    numbers = range(number, number + config.split.draws)
    draws = disjoint_draws(train, config.per_class, numbers, config.seed, "train", rounds=rounds)
    if len(draws) < config.split.draws:
        raise DataError(
            f"data.split.draws asks for {config.split.draws} training sets that share no patient, but the training "
            f"patients suffice for {len(draws)} at data.train_per_class {_as_text(config.per_class)}. Ask for fewer "
            "draws or images, or make val and test smaller."
        )
    ids = list(train["image_id"])
    return [base | {image: "train" if image in draw else config.surplus for image in ids} for draw in draws]


def _require_enough(config: LowData, counts: pd.Series, number: int) -> None:
    wanted = config.per_class or {}
    short = {name: int(counts.get(name, 0)) for name, least in wanted.items() if counts.get(name, 0) < least}
    if short:
        has = ", ".join(f"{count} of {name}" for name, count in short.items())
        raise DataError(
            f"data.train_per_class asks for {_as_text(wanted)} training images a class, but fold {number} "
            f"has only {has}. Ask for fewer, or make val and test smaller."
        )


def _as_text(per_class: Mapping[str, int]) -> str:
    """`50`, or `normal: 200, pneumonia: 20`."""
    same = len(set(per_class.values())) == 1
    return str(max(per_class.values())) if same else ", ".join(f"{name}: {count}" for name, count in per_class.items())
