"""A study's folder: the page for the readers, and apart from it the key with the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pipeline.core.errors import DataError, UserError
from pipeline.core.files import read_json, write_json
from pipeline.data.batches.dataset import read_table, write_table

PAGE = "for-readers/study.html"
FACTS, KEY = "key/study.json", "key/key.csv"
REAL, SYNTHETIC = "real", "synthetic"
ORIGINS = (REAL, SYNTHETIC)
CONFIDENCES = ("a guess", "fairly sure", "sure")
"""What 1, 2 and 3 mean."""
_COLUMNS = ("number", "origin", "label", "image_id", "patient_id")
_MEND = "Give the folder that `radaug readers RUN --out STUDY` wrote."


@dataclass(frozen=True)
class Study:
    """What is known of a study.

    Attributes:
        name: digest of what the readers see; their answers carry it.
        run: name of the experiment whose images it shows.
        fold, gan_seed: of the generator.
        key: the truth of every image: number on the page, origin, label, and for real ones who it is.
    """

    name: str
    run: str
    fold: int
    gan_seed: int
    seed: int
    classes: tuple[str, ...]
    key: pd.DataFrame


def write_study(place: Path, study: Study) -> None:
    """Write the key, as confidential as the run, into the study's folder `place`."""
    facts = {name: value for name, value in asdict(study).items() if name != "key"}
    (place / KEY).parent.mkdir(mode=0o700)
    write_table(place / KEY, study.key[list(_COLUMNS)].astype(str))
    write_json(place / FACTS, facts)


def read_study(place: Path) -> Study:
    """Read the key.

    Raises:
        UserError: `place` is no study's folder.
        DataError: a part of it is damaged.
    """
    if not (place / FACTS).is_file() or not (place / KEY).is_file():
        raise UserError(f"{place}: holds no {FACTS} and {KEY}. {_MEND}")
    try:
        facts = read_json(place / FACTS)
        table = read_table(place / KEY)[list(_COLUMNS)]
        key = table.assign(number=table["number"].astype(int)).sort_values("number", ignore_index=True)
        study = Study(**(facts | {"classes": tuple(facts["classes"])}), key=key)
        whole = set(key["origin"]) <= set(ORIGINS) and set(key["label"]) <= set(study.classes)
        if not whole or list(key["number"]) != list(range(1, len(key) + 1)):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{place}: its key is damaged. Make the study again with the same --seed: it is the same."
        ) from error
    return study
