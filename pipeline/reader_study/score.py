"""What a study's answers say, as rows of metrics.csv: figures over readers and images, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipeline.core.metrics import MetricRow, as_text
from pipeline.core.patients import num_known
from pipeline.measures.crossed import Crossed, Part, crossed, difference_interval, roc_parts, share_interval
from pipeline.measures.resampling import Interval
from pipeline.reader_study.agreement import agreement
from pipeline.reader_study.files import REAL, SYNTHETIC, Study

STAGE = "readers"
SPLITS = {REAL: "test", SYNTHETIC: "synthetic"}
BOTH = "test+synthetic"
_FEWEST = 2
"""Images of a kind from which something is said of it."""


@dataclass(frozen=True)
class Scored:
    """What the answers say.

    Attributes:
        rows: of metrics.csv.
        told_apart: accuracy of telling real from synthetic images; None where the study has only one kind.
        gap: accuracy of the diagnosis on synthetic images less that on real ones; None likewise.
    """

    rows: tuple[MetricRow, ...]
    readers: tuple[str, ...]
    told_apart: Crossed | None
    gap: Crossed | None


@dataclass(frozen=True)
class _Answers:
    """Everybody's answers as arrays [readers, images], beside the key."""

    study: Study
    readers: tuple[str, ...]
    origin: np.ndarray
    confidence: np.ndarray
    diagnosis: np.ndarray

    @property
    def key(self) -> pd.DataFrame:
        return self.study.key

    def of(self, origin: str = "", label: str = "") -> np.ndarray:
        """Which images are of this origin and class."""
        wanted = np.ones(len(self.key), dtype=bool)
        for column, value in (("origin", origin), ("label", label)):
            wanted &= (self.key[column] == value).to_numpy() if value else True
        return wanted

    def alone(self, reader: int) -> _Answers:
        one = slice(reader, reader + 1)
        return replace(
            self, readers=self.readers[one], origin=self.origin[one], confidence=self.confidence[one],
            diagnosis=self.diagnosis[one],
        )  # fmt: skip

    @property
    def told(self) -> np.ndarray:
        return (self.origin == self.key["origin"].to_numpy()).astype(np.float64)

    @property
    def diagnosed(self) -> np.ndarray:
        return (self.diagnosis == self.key["label"].to_numpy()).astype(np.float64)

    def parts(self, right: np.ndarray, chosen: np.ndarray) -> list[Part]:
        """`right` at the `chosen` images, real and synthetic ones apart, so that their mean is the share of all."""
        kinds = [chosen & self.of(origin) for origin in SPLITS]
        return [(kind.sum() / chosen.sum(), right[:, kind]) for kind in kinds if kind.any()]


def score(study: Study, answers: Mapping[str, pd.DataFrame], alpha: float = 0.05) -> Scored:
    """Figures of telling real from synthetic images and of the diagnosis, over readers and images.

    Args:
        answers: what `read_answers` gives.
    """
    names = tuple(sorted(answers))
    tables = [answers[name] for name in names]
    given = _Answers(study, names, *(np.array([one[name] for one in tables])
                                     for name in ("origin", "confidence", "diagnosis")))  # fmt: skip
    labels = ("", *study.classes)
    rows = [*_told_apart(given, alpha, labels), *_diagnosed(given, alpha, labels), *_agreed(given, alpha)]
    for number, name in enumerate(names):
        alone = given.alone(number)
        own = [*_told_apart(alone, alpha, ("",)), *_diagnosed(alone, alpha, ("",))]
        rows += [replace(row, subgroup=f"reader = {name}") for row in own]
    both = all(given.of(origin).sum() >= _FEWEST for origin in SPLITS)
    return Scored(
        tuple(rows),
        names,
        crossed(given.parts(given.told, given.of())) if both else None,
        crossed([(sign, part) for sign, part in zip((1.0, -1.0), _diagnosed_parts(given), strict=True)])
        if both
        else None,
    )


def _told_apart(given: _Answers, alpha: float, labels: Sequence[str]) -> Iterator[MetricRow]:
    kinds = (
        ("sensitivity", SYNTHETIC, "synthetic images called synthetic"),
        ("specificity", REAL, "real images called real"),
    )
    for label in labels:
        found = {origin: given.of(origin, label) for origin in SPLITS}
        if min(one.sum() for one in found.values()) >= _FEWEST:
            chosen = found[REAL] | found[SYNTHETIC]
            share = crossed(given.parts(given.told, chosen))
            yield _row("accuracy", given, chosen, BOTH, label, share, alpha, "told rightly whether it is real")
            if not label:
                yield _auroc(given, alpha)
        for metric, origin, words in kinds:
            if found[origin].sum() >= _FEWEST:
                share = crossed([(1.0, given.told[:, found[origin]])])
                yield _row(metric, given, found[origin], SPLITS[origin], label, share, alpha, words)


def _auroc(given: _Answers, alpha: float) -> MetricRow:
    sure = np.where(given.origin == SYNTHETIC, given.confidence, -given.confidence)
    found = crossed(roc_parts(sure, given.of(SYNTHETIC)))
    return _row("auroc", given, given.of(), BOTH, "", found, alpha, "how sure they are that an image is synthetic")


def _diagnosed(given: _Answers, alpha: float, labels: Sequence[str]) -> Iterator[MetricRow]:
    for label in labels:
        for origin, split in SPLITS.items():
            chosen = given.of(origin, label)
            if chosen.sum() >= _FEWEST:
                share = crossed([(1.0, given.diagnosed[:, chosen])])
                words = f"diagnosis right on {origin} images"
                yield _row("diagnosis_accuracy", given, chosen, split, label, share, alpha, words)
    if all(given.of(origin).sum() >= _FEWEST for origin in SPLITS):
        first, second = (crossed([(1.0, part)]) for part in _diagnosed_parts(given))
        bounds = difference_interval(first, second, alpha)
        yield _as_row(
            "diagnosis_difference", given, given.of(), BOTH, "", bounds,
            f"accuracy of the diagnosis on synthetic less that on real images; {_basis(given)}",
        )  # fmt: skip


def _diagnosed_parts(given: _Answers) -> tuple[np.ndarray, np.ndarray]:
    """Whether the diagnosis is right: of synthetic images, and of real ones."""
    return given.diagnosed[:, given.of(SYNTHETIC)], given.diagnosed[:, given.of(REAL)]


def _agreed(given: _Answers, alpha: float) -> Iterator[MetricRow]:
    if len(given.readers) < 2:
        return
    questions = (("kappa", given.origin, "real or synthetic"), ("diagnosis_kappa", given.diagnosis, "the diagnosis"))
    for metric, said, words in questions:
        found, how = agreement(said, alpha)
        yield _as_row(metric, given, given.of(), BOTH, "", found, f"agreement on {words}; {how}")


def _row(
    metric: str, given: _Answers, chosen: np.ndarray, split: str, label: str, found: Crossed, alpha: float, words: str
) -> MetricRow:
    return _as_row(metric, given, chosen, split, label, share_interval(found, alpha), f"{words}; {_basis(given)}")


def _basis(given: _Answers) -> str:
    number = len(given.readers)
    return f"{number} readers; interval over readers and images" if number > 1 else "one reader; interval over images"


def _as_row(
    metric: str, given: _Answers, chosen: np.ndarray, split: str, label: str, found: Interval, detail: str
) -> MetricRow:
    patients, value = num_known(given.key[chosen]), None if np.isnan(found.value) else found.value
    return MetricRow(
        stage=STAGE, split=split, label=label, metric=metric, value=as_text(value),
        ci_low=as_text(found.low), ci_high=as_text(found.high), n_patients=str(patients) if patients else "",
        n_images=str(int(chosen.sum())), detail=detail,
    )  # fmt: skip
