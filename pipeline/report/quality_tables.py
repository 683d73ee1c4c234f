"""The tables of "Images worth believing in": each figure beside what real validation images get."""

from __future__ import annotations

import math

import pandas as pd

from pipeline.core.guard import TRANSLATION
from pipeline.report.reading import Run
from pipeline.report.tables import Table
from pipeline.report.words import number, with_interval

FIGURES = {
    "fid": ("FID", "distance of feature distributions; lower is better, but few images alone make it large"),
    "kid": (
        "KID",
        "distance of feature distributions, which few images do not enlarge; near 0 is best, on either side",
    ),
    "precision": ("Precision", "share of images that lie among real ones"),
    "recall": ("Recall", "share of real images that lie among these"),
    "density": ("Density", "how many real images' neighbourhoods hold an image; about 1 for real ones"),
    "coverage": ("Coverage", "share of real images that have one of these near them; low where images are missing"),
    "nearest_real_distance": (
        "Nearest real distance",
        "median distance to the nearest training image; far below that of real images: see the near copies",
    ),
    "inception_score": (
        "Inception score",
        "how clearly, and how evenly, the run's classifier sees its classes: from 1 to the number of classes",
    ),
    "ms_ssim": (
        "MS-SSIM",
        "likeness of images of one class among themselves, beside real training images; higher: less varied",
    ),
    "repeats": (
        "Repeats",
        "share of images that nearly equal another one of their class, beside real training images; 0 is best",
    ),
    "histogram_w1": ("Grey values, W1", "mean shift of grey values; 0 is best"),
    "histogram_js": ("Grey values, JS", "divergence of grey-value histograms in bits; 0 is best, 1 is worst"),
    "spectrum_distance": ("Power spectrum", "decibels between mean spectra, fine to coarse detail; 0 is best"),
    "radiomics_fid": ("Radiomics FID", "distance of 16 plain texture and grey-value features; lower is better"),
}
"""Name and meaning, in the tables' order."""
_KEY_FIGURES = ("fid", "kid", "precision", "recall", "density", "coverage", "ms_ssim", "nearest_real_distance")
_HEADER = (
    "Figure", "All synthetic images (interval)", "As many synthetic as real", "Real validation images (interval)",
    "Images (real : synthetic)", "From",
)  # fmt: skip


def quality_table(run: Run) -> Table | None:
    """Figures of all images of the released generator, or else of the first; None where there are none."""
    rows = _released(run)
    found = _by_figure(rows[rows["label"] == "all"], explain=True)
    caption = f"Synthetic against real training images, all classes, {_title(rows)}."
    return Table(caption, _HEADER, found, tight=True) if found else None


def quality_classes_table(run: Run) -> Table | None:
    """The same for each class."""
    rows = _released(run)
    found = tuple(
        (label, *line)
        for label in run.experiment.data.classes
        for line in _by_figure(rows[rows["label"] == label], explain=False)
    )
    return Table(f"Class by class, {_title(rows)}.", ("Class", *_HEADER), found) if found else None


def quality_gans_table(run: Run) -> Table | None:
    """Key figures of every generator; None where there are not several."""
    rows = _quality(run)
    rows = rows[(rows["label"] == "all") & rows["value"].notna()]
    found = []
    for _, own in rows.groupby(["fold", "gan_seed"], sort=True):
        values = own.set_index("metric")["value"]
        found.append((_title(own), *(number(values.get(name), _digits(values.get(name))) for name in _KEY_FIGURES)))
    header = ("GAN", *(FIGURES[name][0] for name in _KEY_FIGURES))
    return Table("Every generator, all synthetic images.", header, tuple(found)) if len(found) > 1 else None


_KEPT = (
    ("label_flips", "Called another class than the source", ""),
    ("wrong_calls", "Called another class than its label", "wrong_calls_source"),
    ("called_target", "Called the target site", "called_target_source"),
    ("kid_target", "KID to the target's real images", "kid_target_source"),
    ("cycle_error", "There and back, share of the window", ""),
)
"""Figure, its title, and the same figure of the untranslated sources."""


def translation_table(run: Run) -> Table | None:
    """What translations between sites keep and change, of the released generator or the first; None without any."""
    rows = _released(run, TRANSLATION)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return None
    cells = []
    for (target, label), own in rows.groupby(["subgroup", "label"], sort=True):
        found = own.set_index("metric")
        figures = (
            _cell(found, name)
            + (f"\n(sources: {number(found['value'].get(plain), 3)})" if plain in found.index else "")
            for name, _, plain in _KEPT
        )
        cells.append(
            (f"{label} to {str(target).removeprefix('site = ')}", *figures, str(found.at["label_flips", "n_images"]))
        )
    caption = (
        f"Translations of training images between sites, {_title(rows)} (interval over images). The class must stay, "
        "the site must go; classifiers judge patients whom they never saw. In brackets: the same of the untranslated "
        "sources. Where flips are many, translations teach wrong labels; where the site stays, they teach nothing new."
    )
    return Table(caption, ("Translation", *(title for _, title, _ in _KEPT), "Images"), tuple(cells), tight=True)


def quality_sentence(run: Run) -> str:
    """Why there are no figures."""
    details = sorted(set(_quality(run)["detail"]))
    return f"{details[0][:1].upper()}{details[0][1:]}." if details else "This run did not measure its images."


def _quality(run: Run, stage: str = "quality") -> pd.DataFrame:
    return run.metrics[run.metrics["stage"] == stage]


def _released(run: Run, stage: str = "quality") -> pd.DataFrame:
    """Rows of the generator that may be released, or else of the first one."""
    rows = _quality(run, stage)
    key = rows["fold"] + " " + rows["gan_seed"]
    wanted = f"{run.experiment.release.fold} {run.experiment.release.gan_seed}"
    return rows[key == (wanted if (key == wanted).any() else key.min())]


def _title(rows: pd.DataFrame) -> str:
    return "" if rows.empty else f"fold {rows['fold'].iloc[0]}, GAN seed {rows['gan_seed'].iloc[0]}"


def _by_figure(rows: pd.DataFrame, *, explain: bool) -> tuple[tuple[str, ...], ...]:
    """One line a figure of one group of images; none where no figure has a value."""
    rows = rows[rows["value"].notna()].set_index("metric")
    lines = []
    for name, (title, meaning) in FIGURES.items():
        if name in rows.index:
            what, _, counts = str(rows.at[name, "detail"]).partition("; ")
            matched = rows["value"].get(f"{name}_matched")
            equal = number(matched, _digits(matched)) if matched is not None else "–"
            counts = counts.removesuffix(" real:synthetic").removesuffix(" images").replace(":", " : ")
            lead = f"{title}\n{meaning}" if explain else title
            lines.append((lead, _cell(rows, name), equal, _cell(rows, f"{name}_floor"), counts, what))
    return tuple(lines)


def _cell(rows: pd.DataFrame, name: str) -> str:
    if name not in rows.index:
        return "–"
    value, low, high = (float(rows[column][name]) for column in ("value", "ci_low", "ci_high"))
    return with_interval(value, low, high, _digits(value)).replace(" (", "\n(")


def _digits(value: float | None) -> int:
    """Decimals that show three figures of a number, four at most."""
    if value is None or not math.isfinite(value) or value == 0:
        return 3
    return min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
