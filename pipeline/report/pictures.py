"""The report's pictures: which there are, what each shows, and its alternative text."""

from __future__ import annotations

import json

import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.errors import UserError
from pipeline.core.guard import TRANSLATIONS_PICTURE
from pipeline.core.layout import (
    CLOSEST_PAIRS,
    FILM_STRIP,
    MEMORISATION,
    QUALITY_CURVES,
    STAGES,
    TIMED_LOG,
    stage_name,
)
from pipeline.report.anomaly_parts import detectors_roc, histogram, worklist_picture
from pipeline.report.attention import attention_picture
from pipeline.report.picture import Picture
from pipeline.report.plots import (
    FOREST_METRICS,
    difference_plot,
    forest_plot,
    nearest_plot,
    roc_plot,
    training_plot,
)
from pipeline.report.quality_plots import curves_plot
from pipeline.report.reading import Run, StageEntry, disease_label, fit_rows, mean_rows, ordered_arms
from pipeline.report.reliability import reliability_plot
from pipeline.report.sheets import sample_sheet, stored_png
from pipeline.report.sweeps import sweep_pictures
from pipeline.report.words import arm_title, count

_MOST_GANS = 9
_FEWEST_FOR_RELIABILITY = 100


def all_pictures(run: Run, *, shareable: bool) -> dict[str, Picture]:
    """The pictures that the run's files allow, by name; a shareable report gets drawn curves only, no image."""
    made = (
        []
        if shareable
        else [
            _samples(run), *sweep_pictures(run), _translations(run), _closest(run), *_strips(run),
            attention_picture(run), worklist_picture(run),
        ]
    )  # fmt: skip
    # first those that read files of stages: one that is missing is told before anything is drawn
    drawn = (_training, _quality, _nearest, histogram, detectors_roc, _difference, _forest, _roc, _reliability)
    made += [maker(run) for maker in drawn]
    return {picture.name: picture for picture in made if picture}


def _difference(run: Run) -> Picture | None:
    evidence = run.verdict["utility"]["evidence"]
    if any(evidence.get(key) is None for key in ("difference", "ci_low", "ci_high", "margin")):
        return None
    alt = (
        "Difference between the arms with its interval, beside zero and the margin; the numbers are in the text above."
    )
    caption = "The primary difference and its interval. Solid line: no difference; dashed: the margin."
    return Picture("difference", alt, caption, *difference_plot(evidence))


def _forest(run: Run) -> Picture | None:
    side = disease_label(run)
    means, fits = (
        rows[rows["label"] == side] for rows in (mean_rows(run.metrics, "test"), fit_rows(run.metrics, "test"))
    )
    means = means[means["metric"].isin(FOREST_METRICS)]
    arms = ordered_arms(run, means["arm"])
    if not arms:
        return None
    alt = f"Forest plot of sensitivity, specificity and AUROC of {len(arms)} arms; the numbers are in the table below."
    caption = (
        "Squares: mean over fits on test patients; bars: interval (a hollow square has none); grey dots: single fits; "
        f"dashed line: {arm_title(REFERENCE_ARM).lower()}."
    )
    return Picture("arms", alt, caption, *forest_plot(means, fits, arms, REFERENCE_ARM))


def _roc(run: Run) -> Picture | None:
    test = _test_predictions(run)
    if test.empty:
        return None
    means = mean_rows(run.metrics, "test")
    arms = ordered_arms(run, test["arm"])
    caption = (
        "ROC curves of the disease score (sum of the classifier's outputs for the disease classes), image by image on "
        "test patients. Thick: mean over fits at equal specificity; thin: single fits; diamond: mean sensitivity and "
        "specificity at the thresholds fixed on validation patients."
    )
    alt = f"ROC curves of {len(arms)} arms with their operating points, each beside {arm_title(REFERENCE_ARM).lower()}."
    return Picture(
        "roc", alt, caption, *roc_plot(test, means[means["label"] == disease_label(run)], arms, REFERENCE_ARM)
    )


def _reliability(run: Run) -> Picture | None:
    test = _test_predictions(run)
    if _num_images(test) < _FEWEST_FOR_RELIABILITY or not test["disease_score"].between(0, 1).all():
        return None
    arms = ordered_arms(run, test["arm"])
    alt = f"Reliability plots of {len(arms)} arms; the numbers are in the table above."
    caption = (
        "Share of test images with the disease over the predicted probability; on the dotted line a probability can be "
        "taken at its word. Blue: all fits of an arm; grey: single fits; bins with fewer than 5 images are left out. "
        "Batches hold all classes equally often, so probabilities are too high where the disease is rare."
    )
    return Picture("reliability", alt, caption, *reliability_plot(test, arms))


def reliability_sentence(run: Run) -> str:
    """Why there is no reliability plot; empty where images are enough for one."""
    images = _num_images(_test_predictions(run))
    if images >= _FEWEST_FOR_RELIABILITY:
        return ""
    return (
        f"There is no reliability plot: {count(images, 'test image')} are too few to compare probabilities with shares "
        f"bin by bin; it takes {_FEWEST_FOR_RELIABILITY}."
    )


def _num_images(test: pd.DataFrame) -> int:
    return int(test["image_id"].nunique())


def _test_predictions(run: Run) -> pd.DataFrame:
    """Test rows with two columns more: `disease_score` and `diseased`."""
    data = run.experiment.data
    test = run.predictions[run.predictions["split"] == "test"]
    scores = test[[f"score_{name}" for name in data.positive]].sum(axis=1)
    return test.assign(disease_score=scores, diseased=test["label"].isin(data.positive))


def _training(run: Run) -> Picture | None:
    stages = run.of_kind("fit-gan")
    if not stages:
        return None
    released = run.released("fit-gan")
    bold = released or stages[0]
    named = "the generator named for release" if released else bold.title
    caption = f"Training of {count(len(stages), 'GAN')}; bold: {named}. Curves alone do not show image quality."
    alt = "Training curves of the GANs: losses, the discriminator's opinion of real and fake images, and speed."
    return Picture(
        "training", alt, caption, *training_plot({stage.name: _history(stage) for stage in stages}, bold.name)
    )


def _history(stage: StageEntry) -> pd.DataFrame:
    lines = stage.file(TIMED_LOG).read_text(encoding="utf-8").splitlines()
    table = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
    if "num_images" not in table.columns:
        raise UserError(f"{STAGES}/{stage.name}/stats.jsonl: has no num_images. Delete that stage and run again.")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    return numbers.dropna(axis="columns", how="all")


def _quality(run: Run) -> Picture | None:
    stage = run.released("quality") or next(iter(run.of_kind("quality")), None)
    if stage is None or not (stage.directory / QUALITY_CURVES).is_file():
        return None
    table = stage.table(QUALITY_CURVES, ("set", "curve", "x", "y")).astype({"x": float, "y": float})
    unit = str(run.only("prepare").record.extra["scaling"]["unit"])
    caption = (
        f"Mean histogram of grey values, and mean power at each spatial frequency, {stage.title}. The synthetic curve "
        "should lie as close to the training images' as the validation images' does. Grey values beyond the window are "
        "in its first and last bin, which may stand out of the picture."
    )
    alt = "Histograms of grey values and power spectra of training, validation and synthetic images."
    return Picture("quality", alt, caption, *curves_plot(table, "no unit" if unit == "none" else unit))


def _nearest(run: Run) -> Picture | None:
    columns = ["nearest_train_distance", "nearest_heldout_distance"]
    tables = {
        stage.title: stage.table(MEMORISATION, columns)[columns].apply(pd.to_numeric, errors="coerce").dropna()
        for stage in _released_first(run, "privacy")
    }
    tables = {title: table for title, table in tables.items() if not table.empty}
    if not tables:
        return None
    caption = (
        "Each dot is a synthetic image: its distance (root mean square, images from -1 to 1) to the nearest held-out "
        "image and to the nearest training image. Dots far below the dotted line are images to look at; a small "
        "shift is chance, since there are more training than held-out images."
    )
    alt = "Distances of synthetic images to the nearest training image against those to the nearest held-out image."
    return Picture("nearest", alt, caption, nearest_plot(tables))


def _samples(run: Run) -> Picture | None:
    stages = run.of_kind("synthesise")
    if not stages:
        return None
    synthetic = run.released("synthesise") or stages[0]
    sheet = sample_sheet(run, run.only("prepare"), synthetic)
    volumes = run.experiment.data.spatial_dims == 3
    planes = " Rows: middle axial, coronal and sagittal planes of the same volumes." if volumes else ""
    caption = (
        "Not picked: left, training images of the fold drawn by lot, one a patient where possible; right, the first "
        f"images that the generator made ({synthetic.title}). One grey scale for all; enlarged by smooth "
        f"interpolation.{planes}"
    )
    classes = ", ".join(run.experiment.data.classes)
    return Picture("samples", f"Real beside synthetic images, one row a class: {classes}.", caption, sheet)


def _translations(run: Run) -> Picture | None:
    stage = run.released("quality") or next(iter(run.of_kind("quality")), None)
    if stage is None or not (stage.directory / TRANSLATIONS_PICTURE).is_file():
        return None
    pairs = "; ".join(stage.record.extra["translations"])
    caption = f"Not picked: training images above their translations, from the top: {pairs} ({stage.title})."
    alt = "Pairs of rows: training images of one site, and below them their translations to the other."
    return Picture("translations", alt, caption, stored_png(stage.file(TRANSLATIONS_PICTURE), 1440, 900_000))


def _closest(run: Run) -> Picture | None:
    stages = run.of_kind("privacy")
    if not stages:
        return None
    stage = run.released("privacy") or stages[0]
    caption = (
        f"Above, the synthetic images closest to a training image; below, that image ({stage.title}). Judge by eye."
    )
    nearness = stage.record.extra.get("closest", [])
    if nearness:
        said = ", ".join(f"{one:.2f}" for one in nearness)
        caption += (
            f" Their distances from left to right, where 1 is how far an unseen image usually is from its nearest "
            f"training image: {said}. Below {stage.record.extra['near']:g} a synthetic image is a near copy."
        )
    alt = "Pairs of a synthetic image and the training image nearest to it, the closest pairs first."
    return Picture("closest-pairs", alt, caption, stored_png(stage.file(CLOSEST_PAIRS), 1440, 900_000))


def _strips(run: Run) -> list[Picture]:
    """Film strips, that of the released generator first and large; the others small."""
    strips = []
    for number, stage in enumerate(_released_first(run, "fit-gan")):
        width, most_bytes = (640, 90_000) if number else (1440, 900_000)
        caption = f"{stage.title}: samples from the same random numbers as training goes on."
        name = stage_name("film-strip", stage.fold, stage.gan_seed)
        alt = f"Film strip of generated samples over the training, {stage.title}."
        strips.append(Picture(name, alt, caption, stored_png(stage.file(FILM_STRIP), width, most_bytes)))
    return strips


def _released_first(run: Run, kind: str) -> list[StageEntry]:
    """Stages of this kind, that of the released generator first, `_MOST_GANS` at most."""
    released = run.released(kind)
    return sorted(run.of_kind(kind), key=lambda stage: stage is not released)[:_MOST_GANS]
