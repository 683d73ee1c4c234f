"""What readers answered: their files, read and checked against the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core.errors import DataError, UserError
from pipeline.reader_study.files import CONFIDENCES, Study

FORMAT = "radaug-answers-1"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int
    origin: Literal["real", "synthetic"] | None = None
    confidence: int | None = Field(default=None, ge=1, le=len(CONFIDENCES))
    diagnosis: str | None = None

    @property
    def is_complete(self) -> bool:
        return None not in (self.origin, self.confidence, self.diagnosis)


class _Answers(BaseModel):
    """The file that the page saves."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["radaug-answers-1"]
    study: str
    reader: str = Field(min_length=1)
    order: list[int]
    answers: list[_Answer]


def read_answers(paths: Sequence[Path], study: Study) -> dict[str, pd.DataFrame]:
    """Each reader's answers: origin, confidence and diagnosis, a row an image, in the order of the key.

    Raises:
        UserError: a file is none of this study's, or not complete; or two files are of one reader.
        DataError: a file is damaged.
    """
    found: dict[str, pd.DataFrame] = {}
    for path in paths:
        said = _read(path)
        if said.study != study.name:
            raise UserError(f"{path}: holds answers to study {said.study}, and this one is {study.name}.")
        if said.reader in found:
            raise UserError(
                f"{path}: is the second file of reader {said.reader}. Give one of the two; if they are two readers, "
                "give one of them another code in its file."
            )
        found[said.reader] = _table(path, said, study)
    if not found:
        raise UserError("No answers were given. Name the readers' files after STUDY, such as STUDY/*.json.")
    return found


def _read(path: Path) -> _Answers:
    try:
        return _Answers.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({(error.strerror or 'no reason given').lower()}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: is no file of answers ({where + ': ' if where else ''}{first['msg']}). Give what the page saves "
            "at the end of a reading."
        ) from error


def _table(path: Path, said: _Answers, study: Study) -> pd.DataFrame:
    numbers, wanted = [one.number for one in said.answers], set(study.key["number"])
    if len(set(numbers)) < len(numbers) or not set(numbers) <= wanted:
        raise DataError(
            f"{path}: answers an image twice, or one that is not in the study. Save it again from the page."
        )
    lacking = len(wanted) - sum(one.is_complete for one in said.answers)
    if lacking:
        raise UserError(
            f"{path}: {lacking} of {len(wanted)} images are not answered. Open the page again as {said.reader}, in the "
            "same browser: it goes on there."
        )
    strange = {str(one.diagnosis) for one in said.answers} - set(study.classes)
    if strange:
        raise DataError(f"{path}: names the diagnosis {min(strange)}; the classes are {', '.join(study.classes)}.")
    table = pd.DataFrame([one.model_dump() for one in said.answers]).set_index("number")
    return table.loc[study.key["number"]].reset_index()
