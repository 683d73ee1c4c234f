"""Columns that give the class away: a classifier may read the scanner instead of the disease."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.patients import patient_units
from pipeline.data.cohort.manifest import CONTENT, IDENTITY

Floats = NDArray[np.float64]

SCANNER = (
    "modality",
    "manufacturer",
    "model",
    "kernel",
    "slice_thickness_mm",
    "photometric",
    "spacing",
    "spacing_known",
    "size",
)
"""How an image was acquired: tested as one group first, and column by column only if the group speaks up."""
ALPHA = 0.01
SMALL, NOTABLE = 0.1, 0.2  # Cramér's V
PERMUTATIONS = 4999
_BINS, _FOLDS = 4, 5
_CHUNK, _CELLS = 128, 2**22
"""Permutations, and units of all of them, that are looked at together, at most."""
_ID_NAME = re.compile(r"(^|[_ ])u?id$", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """How well one column (or, with `column` "scanner", the whole group) tells the class.

    Attributes:
        cramers_v: association, 0 to 1, less what chance alone gives at this number of patients; the group's largest.
        p_value: by permuting whole patients; Holm-corrected over the columns outside the group. The group has one of
            its own, and so has, uncorrected, each of its members.
        guessed: balanced accuracy of guessing the class of unseen patients' images from the column alone.
        entangled: whether it is worth a warning.
        values: for acquisition columns and sex, the commonest values with their share of each class, else "".
    """

    column: str
    cramers_v: float
    p_value: float
    guessed: float
    entangled: bool
    values: str = ""


@dataclass(frozen=True)
class _Column:
    name: str
    codes: NDArray[np.int64]  # category of each image
    categories: tuple[str, ...]


def find_confounders(manifest: pd.DataFrame, classes: Sequence[str], seed: int = 0) -> list[Finding]:
    """Test every column of the labelled images that is no id, path, geometry of a lesion or copy of the label.

    Numbers are cut into quarters, an empty cell is a value of its own. The statistic is chi-squared over all images;
    its null distribution comes from permuting labels among (patient, label) units, so that a patient's many images
    count as one. The acquisition columns are first tested as one group, by the sum of their standardised statistics:
    many weak signs of one cause, too weak for each column alone in a small data set. If the group is significant, its
    members are reported by their size of effect.

    Returns:
        the group first, if it is entangled, then every tested column by descending effect.
    """
    table = manifest[manifest["label"] != ""].reset_index(drop=True)
    labels = pd.Index(classes).get_indexer(pd.Index(table["label"]))
    patients = patient_units(table)
    columns = [column for name in table if (column := _categorised(table, str(name), patients.nunique(), classes))]
    if not columns:
        return []
    tests = _permuted(columns, patients, labels, len(classes), seed)
    corrected = _holm({c.name: p for c, p in zip(columns, tests.p_values, strict=True) if c.name not in SCANNER})
    group = tests.group_p < ALPHA and max(tests.effects[tests.scanner], default=0.0) >= SMALL
    findings = []
    for column, effect, own_p in zip(columns, tests.effects.tolist(), tests.p_values, strict=True):
        member = column.name in SCANNER
        p = own_p if member else corrected[column.name]
        entangled = (group and effect >= NOTABLE) if member else (p < ALPHA and effect >= SMALL)
        shares = _shares(column, labels, classes) if member or column.name == "sex" else ""
        guessed = _guessed(column.codes, patients, labels, len(classes), seed)
        findings.append(Finding(column.name, effect, p, guessed, entangled, shares))
    findings.sort(key=lambda finding: -finding.cramers_v)
    if group:
        members = [finding for finding in findings if finding.column in SCANNER]
        guessed = max(finding.guessed for finding in members)
        named = ", ".join(finding.column for finding in members if finding.entangled) or members[0].column
        findings.insert(0, Finding("scanner", members[0].cramers_v, tests.group_p, guessed, True, named))
    return findings


def _categorised(table: pd.DataFrame, name: str, patients: int, classes: Sequence[str]) -> _Column | None:
    """The column as categories; None where it cannot or should not be tested."""
    if name not in SCANNER and (name in (*IDENTITY, *CONTENT) or _ID_NAME.search(name)):
        return None
    texts = table[name].astype(str).str.strip()
    if name == "spacing":
        texts = texts.str.partition("x")[0]  # mm along the first axis: pixels are square but for rare exceptions
    filled = texts[texts != ""]
    numbers = pd.to_numeric(filled, errors="coerce")
    numeric = len(filled) > 0 and bool(numbers.notna().all())
    if not numeric and texts.nunique() > patients / 2:
        return None
    if numeric and numbers.nunique() > _BINS + 1:
        edges = np.quantile(numbers, np.arange(1, _BINS) / _BINS)
        texts = texts.mask(
            texts != "", "quarter " + pd.Series(1 + np.searchsorted(edges, numbers), filled.index).astype(str)
        )
    codes, categories = pd.factorize(texts, sort=True)
    if len(categories) < 2 or (name not in SCANNER and _is_label(texts, table["label"], classes)):
        return None
    return _Column(name, codes.astype(np.int64), tuple(str(category) for category in categories))


def _is_label(texts: pd.Series, labels: pd.Series, classes: Sequence[str]) -> bool:
    """Whether the column is the label written another way: one value a class, and these are names or small numbers."""
    pairs = set(zip(texts, labels, strict=True))
    one_to_one = len(pairs) == texts.nunique() == labels.nunique()
    named = {value.lower() for value in texts} <= {name.lower() for name in classes}
    return one_to_one and (named or set(texts) <= {str(number) for number in range(len(classes) + 1)})


@dataclass(frozen=True)
class _Tests:
    """Of every column: its effect and p-value, and whether it is of the scanner group; and the group's p-value."""

    effects: Floats
    p_values: list[float]
    scanner: NDArray[np.bool_]
    group_p: float


def _permuted(
    columns: list[_Column], patients: pd.Series, labels: NDArray[np.int64], num_classes: int, seed: int
) -> _Tests:
    observed, drawn = _statistics(columns, patients, labels, num_classes, seed)
    mean, spread = drawn.mean(axis=1, keepdims=True), drawn.std(axis=1, keepdims=True)
    scale = np.where(spread > 0, spread, 1.0)
    scanner = np.array([column.name in SCANNER for column in columns])
    freedom = np.array([min(len(column.categories), num_classes) - 1 for column in columns])
    summed = float(((observed - mean[:, 0]) / scale[:, 0])[scanner].sum())
    return _Tests(
        effects=np.sqrt(np.clip((observed - mean[:, 0]) / freedom, 0, None)),
        p_values=[_p_value(float(found), null) for found, null in zip(observed, drawn, strict=True)],
        scanner=scanner,
        group_p=_p_value(summed, ((drawn - mean) / scale)[scanner].sum(axis=0)) if scanner.any() else 1.0,
    )


def _statistics(
    columns: list[_Column], patients: pd.Series, labels: NDArray[np.int64], num_classes: int, seed: int
) -> tuple[Floats, Floats]:
    """Chi-squared / n of every column against the class: observed [columns], and under permutation [columns, draws]."""
    units = pd.factorize(patients + "\n" + pd.Series(labels).astype(str))[0]
    count = np.bincount(units).astype(float)
    classes = np.zeros((len(count), num_classes))
    classes[units, labels] = 1
    weighted = classes * count[:, None]
    profiles = [np.zeros((len(count), len(column.categories))) for column in columns]
    for profile, column in zip(profiles, columns, strict=True):
        np.add.at(profile, (units, column.codes), 1)
        profile /= count[:, None]
    stacked, ends = np.hstack(profiles).T, np.cumsum([profile.shape[1] for profile in profiles])
    rng = np.random.default_rng(seed)
    chunk = max(1, min(_CHUNK, _CELLS // len(count)))
    order = np.tile(np.arange(len(count)), (chunk, 1))
    results = []
    for low in range(0, PERMUTATIONS, chunk):
        drawn = np.ascontiguousarray(rng.permuted(order, axis=1)[: PERMUTATIONS - low].T)  # [units, draws]
        tables = stacked @ weighted.take(drawn, axis=0).reshape(len(count), -1)  # one product for all draws
        results.append(_phi_squared(tables.reshape(len(stacked), -1, num_classes).swapaxes(0, 1), ends))
    return _phi_squared((stacked @ weighted)[None], ends)[:, 0], np.hstack(results)


def _phi_squared(tables: Floats, ends: NDArray[np.int64]) -> Floats:
    """Chi-squared / n [columns, draws]; `tables` [draws, rows, classes] holds the columns' tables below each other."""
    found = []
    for table in np.split(tables, ends[:-1], axis=1):
        total = table.sum(axis=(1, 2), keepdims=True)
        expected = table.sum(axis=2, keepdims=True) * table.sum(axis=1, keepdims=True) / total
        terms = np.divide((table - expected) ** 2, expected, out=np.zeros_like(table), where=expected > 0)
        found.append(terms.sum(axis=(1, 2)) / total[:, 0, 0])
    return np.stack(found)


def _p_value(observed: float, drawn: Floats) -> float:
    return float((1 + (drawn >= observed - 1e-12).sum()) / (1 + drawn.size))


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    corrected, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        running = max(running, min(1.0, p_values[name] * (len(p_values) - rank)))
        corrected[name] = running
    return corrected


def _guessed(
    codes: NDArray[np.int64], patients: pd.Series, labels: NDArray[np.int64], num_classes: int, seed: int
) -> float:
    """Balanced accuracy of a value's commonest class, learnt on other patients; an unseen value is a blind guess."""
    numbers, names = pd.factorize(patients)
    fold = np.random.default_rng(seed).permutation(len(names))[numbers] % _FOLDS
    credit = np.zeros(len(labels))
    for held in range(_FOLDS):
        train, test = fold != held, fold == held
        counts = np.zeros((codes.max() + 1, num_classes))
        np.add.at(counts, (codes[train], labels[train]), 1)
        rates = counts / np.maximum(counts.sum(axis=0), 1)
        best = rates == rates.max(axis=1, keepdims=True)
        credit[test] = (best / best.sum(axis=1, keepdims=True))[codes[test], labels[test]]
    return float(np.mean([credit[labels == number].mean() for number in range(num_classes)]))


def _shares(column: _Column, labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    counts = np.bincount(column.codes)
    parts = []
    for category in np.argsort(-counts, kind="stable")[:3]:
        shares = [
            f"{np.mean(column.codes[labels == number] == category):.0%} of {name}"
            for number, name in enumerate(classes)
        ]
        parts.append(f"{column.categories[category] or 'not stated'}: {', '.join(shares)}")
    return "; ".join(parts)
