"""Who a patient is: one rule for everything that counts patients, keeps them together or draws them."""

from __future__ import annotations

import pandas as pd


def known_patients(table: pd.DataFrame) -> pd.Series:
    """The patient id of every row of `table`, as text without blanks around it; empty where no patient is known.

    Args:
        table: the column patient_id; a table that a program made may hold numbers, and 7.0 is patient 7.
    """
    return table["patient_id"].map(_as_text).astype(str).str.strip()


def num_known(table: pd.DataFrame) -> int:
    """How many patients `table` names."""
    return len(set(known_patients(table)) - {""})


def patient_units(table: pd.DataFrame) -> pd.Series:
    """What is never divided and is drawn as a whole: the patient, or the image itself where no patient is known.

    Units are text, `patient ID` or `image ID`, so that image 7 without a patient is not patient 7; sorted, images come
    first.

    Args:
        table: the columns image_id and patient_id.
    """
    known = known_patients(table)
    return ("patient " + known).where(known != "", "image " + table["image_id"].map(_as_text).astype(str))


def _as_text(one: object) -> str:
    """Nothing for a missing id, whole numbers without a decimal point."""
    if pd.isna(one):  # type: ignore[call-overload]
        return ""
    return f"{one:.0f}" if isinstance(one, float) and one.is_integer() else str(one)
