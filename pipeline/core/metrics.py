"""metrics.csv: one row a figure. The columns stand here alone; whoever writes or reads the table does it here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.files import atomic_path
from pipeline.core.layout import METRICS_FILE

_MEND = "Do `radaug run` again: finished stages are kept."


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One figure, as text; an empty cell says "all" or "none" of what its column names.

    Attributes:
        stage: that found it; `downstream` for the arms.
        fold, seed, gan_seed: of a single fit; empty in means over fits.
        split: the images that it is of.
        label: the class, or classes joined by `+`, against the rest.
        subgroup: `COLUMN = VALUE`, a probed column, or `per patient`.
        value, ci_low, ci_high: as `as_text` gives them.
        n_patients, n_images: how many the figure rests on.
        detail: how it was made, in words.
    """

    stage: str
    arm: str = ""
    fold: str = ""
    seed: str = ""
    gan_seed: str = ""
    split: str = ""
    label: str = ""
    subgroup: str = ""
    metric: str
    value: str = ""
    ci_low: str = ""
    ci_high: str = ""
    n_patients: str = ""
    n_images: str = ""
    detail: str = ""


COLUMNS = tuple(field.name for field in fields(MetricRow))


def as_text(figure: float | None, low: float = -math.inf, high: float = math.inf) -> str:
    """A figure to six digits, held between `low` and `high`; nothing for one that is not there."""
    if figure is None:
        return ""
    return f"{min(max(figure, low), high):.6g}"


def table_of(rows: Iterable[MetricRow]) -> pd.DataFrame:
    """The rows as a table of text."""
    return pd.DataFrame([[getattr(row, name) for name in COLUMNS] for row in rows], columns=list(COLUMNS), dtype=str)


def write_metrics(directory: Path, rows: Iterable[MetricRow]) -> None:
    """Write metrics.csv into `directory` in one move."""
    with atomic_path(directory / METRICS_FILE) as temporary:
        table_of(rows).to_csv(temporary, index=False)


def read_metrics(directory: Path) -> list[MetricRow]:
    """The rows of metrics.csv in `directory`.

    Raises:
        DataError: it is not there, or a column is missing.
    """
    path = directory / METRICS_FILE
    if not path.is_file():
        raise DataError(f"{METRICS_FILE}: is missing from {directory.name}. {_MEND}")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise DataError(f"{METRICS_FILE}: has no column {', '.join(lacking)}. {_MEND}")
    rows = table[list(COLUMNS)].itertuples(index=False, name=None)
    return [MetricRow(**dict(zip(COLUMNS, cells, strict=True))) for cells in rows]
