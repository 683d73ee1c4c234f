"""What a study can show, and what its answers say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scipy.special import ndtri

from pipeline.core.metrics import MetricRow
from pipeline.measures.crossed import Crossed, images_needed
from pipeline.reader_study.score import BOTH, Scored

_READERS = (3, 5, 8, 12, 20)
_USUAL, _ASSUMED_RATE, _POWER = 5, 0.8, 0.8


def expectation(images: int, alpha: float = 0.05) -> str:
    """What a study can show before anybody has read: best where each answer stands for itself, worst where all readers
    answer alike, so that only images count. The diagnosis is assumed to be right in 80 %.
    """
    quantiles = float(ndtri(1 - alpha / 2) + ndtri(_POWER))
    answers = (images * _USUAL, images)
    above = [100 * quantiles * (0.25 / one) ** 0.5 for one in answers]
    apart = [100 * quantiles * (_ASSUMED_RATE * (1 - _ASSUMED_RATE) * 4 / one) ** 0.5 for one in answers]
    return (
        f"With {images} images and {_USUAL} readers it is seen, in 80 of 100 studies, when they tell real from "
        f"synthetic images {above[0]:.0f} to {above[1]:.0f} points better than by chance, or when the diagnosis is "
        f"right {apart[0]:.0f} to {apart[1]:.0f} points more often on one kind: the less alike they answer, the less."
    )


def sentences(found: Scored, difference: float, alpha: float = 0.05) -> list[str]:
    """The main figures, and how many images and readers it takes to see `difference` (0.1 = 10 points)."""
    overall = {(row.metric, row.split): row for row in found.rows if not row.label and not row.subgroup}
    by_class = [row for row in found.rows if row.label and row.metric == "accuracy"]
    return [
        *_told_apart(overall),
        *(f"  {row.label}: {_figure(row)}, {row.n_images} images" for row in by_class),
        *_diagnosed(overall),
        *_agreed(overall),
        *_needed(found, difference, alpha),
    ]


Overall = Mapping[tuple[str, str], MetricRow]


def _told_apart(overall: Overall) -> Iterator[str]:
    accuracy = overall.get(("accuracy", BOTH))
    asked = (
        ("accuracy", BOTH, "Real or synthetic, told rightly (accuracy)"),
        ("sensitivity", "synthetic", "Synthetic images called synthetic (sensitivity)"),
        ("specificity", "test", "Real images called real (specificity)"),
        ("auroc", BOTH, "AUROC of how sure they are that an image is synthetic"),
    )
    for metric, split, words in asked:
        row = overall.get((metric, split))
        if row:
            yield f"{words}: {_figure(row)}."
    if accuracy:
        low, high = float(accuracy.ci_low), float(accuracy.ci_high)
        if low > 0.5:
            yield "These readers tell synthetic images from real ones better than by chance."
        elif high < 0.5:
            yield "These readers take synthetic images for real ones, or real for synthetic, more often than by chance."
        else:
            yield f"It is not shown that readers tell them apart; they may be right in up to {100 * high:.0f} %."


def _diagnosed(overall: Overall) -> Iterator[str]:
    for split, kind in (("test", "real"), ("synthetic", "synthetic")):
        row = overall.get(("diagnosis_accuracy", split))
        if row:
            yield f"Diagnosis right on {kind} images: {_figure(row)}."
    gap = overall.get(("diagnosis_difference", BOTH))
    if gap:
        ends = f" ({100 * float(gap.ci_low):+.0f} to {100 * float(gap.ci_high):+.0f})" if gap.ci_low else ""
        yield f"Synthetic less real: {100 * float(gap.value):+.0f} points{ends}."


def _agreed(overall: Overall) -> Iterator[str]:
    for metric in ("kappa", "diagnosis_kappa"):
        row = overall.get((metric, BOTH))
        if row:
            said, _, how = row.detail.partition("; ")
            kappa = _figure(row) if row.value else "no kappa, all answers are alike"
            yield f"{said[0].upper()}{said[1:]}: {kappa} ({how})."


def _needed(found: Scored, difference: float, alpha: float) -> Iterator[str]:
    questions = (("an accuracy", "above chance", found.told_apart), ("a diagnosis", "better on one kind", found.gap))
    for what, where, figure in questions:
        if figure is None or len(found.readers) < 2:
            continue
        if not figure.estimate().error:
            yield f"What it takes to see {what} {where} cannot be said: these answers do not scatter."
        else:
            figure = figure.at_share(0.5) if figure is found.told_apart else figure
            yield (
                f"To see {what} {100 * difference:g} points {where} in 80 of 100 studies, by how these answers "
                f"scatter: {_listed(figure, len(found.readers), difference, alpha)}."
            )


def _listed(figure: Crossed, own: int, difference: float, alpha: float) -> str:
    needed = {readers: images_needed(figure, readers, difference, alpha) for readers in sorted({*_READERS, own})}
    enough = [f"{readers} readers and {images:,} images" for readers, images in needed.items() if images]
    lacking = [readers for readers, images in needed.items() if not images]
    said = [f"{lacking[-1]} readers are too few, they differ too much among themselves"] if lacking else []
    return "; ".join([*said, *enough])


def _figure(row: MetricRow) -> str:
    value = f"{float(row.value):.2f}" if row.value else "–"
    return f"{value} ({float(row.ci_low):.2f} to {float(row.ci_high):.2f})" if row.ci_low else value
