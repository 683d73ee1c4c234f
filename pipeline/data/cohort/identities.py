"""Patient ids that are none, and ids that are one patient's in two spellings. Messages name files, never ids."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd

from pipeline.core.errors import DataError
from pipeline.data.cohort.audit_rows import WARNING, Row

_UNKNOWN_WORDS = (
    "unknown unkown unk unbekannt inconnu desconocido anonymous anonymized anonymised anonym anon "
    "deidentified pseudonymized pseudonymised nan na n/a none null nil nill missing empty blank tbd test "
    "dummy default patient patientid id notavailable notapplicable notknown noid noname removed redacted "
    "hidden masked undefined unnamed unspecified other value name ref div/0 num "
)
_WORDS = frozenset(_UNKNOWN_WORDS.split())
"""Words for "nobody knows", and a spreadsheet's errors (`#N/A`, `#VALUE!`), without spaces and marks."""
_FILLERS = re.compile(r"(x{1,}|\?+|-+|_+|\.+|\*+|#+)", re.IGNORECASE)
_SENTINELS = re.compile(r"-?(0+|9{2,}|1|12345\d*)(\.0+)?")
"""Numbers that stand for "unknown" in some tables, and are patients in others: 0, -1, 99, 999."""
_SCIENTIFIC = re.compile(r"\d([.,]\d+)?e\+\d+", re.IGNORECASE)
"""What a spreadsheet makes of a long number: its last digits are lost."""
_CROWDED = 3
_MANY, _MANY_TIMES = 10, 10
"""A patient with so many images, and so many times what half of the others have, is asked about."""
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹣－"), "-")
_LOOK_ALIKES = str.maketrans(
    "АВЕКМНОРСТУХаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEKMHOPCTYXaeopcyxijsABEZHIKMNOPTYXo"
)  # Cyrillic and Greek letters drawn like Latin ones


def spelling(name: str) -> str:
    """What is left of an id without what spreadsheets and typists change.

    That is: leading zeros of its numbers, a `.0` at the end, letter case, spaces, kinds of dash and look-alike letters.
    """
    text = unicodedata.normalize("NFKC", name).translate(_LOOK_ALIKES).translate(_DASHES).casefold()
    text = re.sub(r"[\s\u200b-\u200f\u00ad\ufeff]+", "", text)
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    return re.sub(r"(?<![\d.])0+(?=\d)", "", text)


def placeholders(ids: pd.Series) -> set[str]:
    """Ids that stand for "unknown", or that a spreadsheet has cut short, and that several images share.

    A number such as 0 or 999 counts only where more images have it than any patient of its kind would: at least three,
    and three times as many as half of the other ids have.
    """
    counts = ids[ids != ""].value_counts()
    ascending = counts.to_numpy()[::-1]
    found = set()
    for name, count in counts[counts > 1].items():
        crowded = count >= _CROWDED and count > _CROWDED * _median_without(ascending, int(count))
        if _says_unknown(str(name)) or (_SENTINELS.fullmatch(str(name)) and crowded):
            found.add(str(name))
    return found


def _median_without(ascending: np.ndarray, one: int) -> float:
    """The median of sorted numbers but for `one` of them; 0 where there is no other."""
    left, place = len(ascending) - 1, int(np.searchsorted(ascending, one))
    middle = [at + (at >= place) for at in ((left - 1) // 2, left // 2)]
    return float(ascending[middle].mean()) if left else 0.0


def _says_unknown(name: str) -> bool:
    bare = re.sub(r"[\s_\-.#!?()<>\[\]*'\"]+", "", unicodedata.normalize("NFKC", name)).casefold()
    return bare in _WORDS or bool(_FILLERS.fullmatch(name) or _SCIENTIFIC.fullmatch(name))


def with_patients(manifest: pd.DataFrame, where: str, *, from_headers: bool) -> pd.DataFrame:
    """The manifest with the headers' patient wherever the table names none, and without `header_patient`.

    Args:
        from_headers: the images are files with headers, whose ids a label table may not contradict.

    Raises:
        DataError: table and headers contradict each other, ids are placeholders, or one patient has two spellings.
    """
    void = placeholders(manifest["header_patient"]) | _one_for_all(manifest)
    both = manifest.assign(header_patient=manifest["header_patient"].mask(manifest["header_patient"].isin(void), ""))
    both = both[(both["patient_id"] != "") & (both["header_patient"] != "")]
    if from_headers:
        _refuse_contradictions(both, where)
    _refuse_torn(both, where)
    patients = manifest["patient_id"].mask(manifest["patient_id"] == "", manifest["header_patient"])
    filled = manifest.drop(columns="header_patient").assign(patient_id=patients)
    _refuse_placeholders(filled, where)
    _refuse_two_spellings(filled, where)
    return filled


def _one_for_all(manifest: pd.DataFrame) -> set[str]:
    """The headers' id, if it is one and the same in every image and the table tells many patients apart."""
    headers = set(manifest["header_patient"])
    named = manifest["patient_id"][manifest["patient_id"] != ""]
    return headers if len(headers) == 1 and len(named) == len(manifest) and named.nunique() >= _MANY else set()


def void_headers(manifest: pd.DataFrame) -> list[Row]:
    """An audit row where the headers' patient ids are placeholders and the table's are used in their stead.

    Args:
        manifest: patient_id of the table, header_patient of the headers.
    """
    void = placeholders(manifest["header_patient"]) | _one_for_all(manifest)
    used = manifest["header_patient"].isin(void - {""}) & (manifest["patient_id"] != "")
    if not used.any():
        return []
    detail = (
        f"The headers of {int(used.sum())} images share patient ids that are taken for placeholders of an anonymiser; "
        f"the table's ids are used. The first file: {manifest['path'][used].iloc[0]}."
    )
    return [("placeholders in headers", WARNING, int(used.sum()), detail)]


def _refuse_contradictions(both: pd.DataFrame, where: str) -> None:
    wrong = both[both["patient_id"] != both["header_patient"]]
    if wrong.empty:
        return
    mend = "Mend the table, or leave its patient column out to use the headers' ids."
    if (wrong["patient_id"].map(spelling) == wrong["header_patient"].map(spelling)).all():
        mend = (
            "They differ only in leading zeros, a trailing .0, letter case or spaces, as when a spreadsheet makes 7 of "
            "007: import the column as text, or leave it out to use the headers' ids."
        )
    elif both["header_patient"].nunique() == 1:
        mend = "All headers carry one id. If an anonymiser wrote it, empty it in the files (tag 0010,0020). " + mend
    raise DataError(
        f"{where}: {len(wrong)} file(s) carry another patient id than the label table, the first: "
        f"{wrong['path'].iloc[0]}. {mend}"
    )


def _refuse_torn(both: pd.DataFrame, where: str) -> None:
    names = both.groupby("header_patient")["patient_id"].nunique()
    if (names > 1).any():
        rows = both[both["header_patient"] == names.idxmax()]
        raise DataError(
            f"{where}: {int((names > 1).sum())} patient(s) of the headers have more than one patient_id in the table, "
            "so their images could land in train and test. Give each patient one id. If an anonymiser wrote one id "
            f"into all headers, empty it there. The first file: {rows['path'].iloc[0]}."
        )


def _refuse_placeholders(manifest: pd.DataFrame, where: str) -> None:
    shared = placeholders(manifest["patient_id"])
    wrong = manifest["path"][manifest["patient_id"].isin(shared)]
    if len(wrong):
        cut = all(_SCIENTIFIC.fullmatch(name) for name in shared)
        what = "numbers that a spreadsheet has cut short, such as 1.23E+05" if cut else "such as ANONYMOUS, nan or 0"
        raise DataError(
            f"{where}: {len(wrong)} of {len(manifest)} images share patient ids that are placeholders ({what}; "
            f"{len(shared)} of them), so all these images would count as one patient's. The first: {wrong.iloc[0]}. "
            "Give the true ids in the table's patient_id column; where a patient is truly unknown, give each of the "
            "images an id of its own, such as its file name."
        )


def refuse_one_patient(manifest: pd.DataFrame, where: str) -> None:
    """Refuse a data set whose images all have one patient id: nothing can be split.

    Raises:
        DataError: as above.
    """
    if len(manifest) > 1 and manifest["patient_id"].iloc[0] != "" and manifest["patient_id"].nunique() == 1:
        raise DataError(
            f"{where}: all {len(manifest)} images have one and the same patient id. Is it a placeholder of an "
            "anonymiser? Train, val and test need different patients: give their ids in the table's patient_id column."
        )


def _refuse_two_spellings(manifest: pd.DataFrame, where: str) -> None:
    known = manifest[manifest["patient_id"] != ""]
    forms = known["patient_id"].map(spelling)
    torn = known["patient_id"].groupby(forms).nunique()
    torn = torn[torn > 1]
    if len(torn):
        rows = known[forms == torn.index[0]]
        other = rows[rows["patient_id"] != rows["patient_id"].iloc[0]]
        raise DataError(
            f"{where}: {len(torn)} patient(s) have ids in more than one spelling: they differ only in leading zeros, a "
            "trailing .0, letter case, spaces or letters that look alike (007 and 7), so images of one patient could "
            f"land in train and test. The first: {rows['path'].iloc[0]} and {other['path'].iloc[0]}. Write each "
            "patient's id in one way; give patients that do differ ids that differ more."
        )


def largest_patient(manifest: pd.DataFrame) -> list[Row]:
    """An audit row where one patient has far more images than the others: the id may stand for `unknown`."""
    known = manifest[manifest["patient_id"] != ""]
    counts = known["patient_id"].value_counts()
    if len(counts) < 2 or counts.iloc[0] < _MANY or counts.iloc[0] < _MANY_TIMES * counts.iloc[1:].median():
        return []
    first = known["path"][known["patient_id"] == counts.index[0]].iloc[0]
    detail = (
        f"One patient has {counts.iloc[0]} of {len(manifest)} images, and half of the others at most "
        f"{counts.iloc[1:].median():g}: does this id stand for an unknown patient? The first file: {first}."
    )
    return [("one patient with many images", WARNING, int(counts.iloc[0]), detail)]
