"""How faint and how small may a lesion be? Detectors on liver phantoms whose lesion is planted, swept over both.

Run: .venv/bin/python benchmarks/anomaly_phantoms.py [DETECTOR ...] [--field inside] [--seeds 1] | plot

A detector learns from healthy livers (64 x 64, 1.5 mm a pixel, one image a patient) and is tried on other healthy
livers against livers with one ball darker than the parenchyma: at 16 mm over its contrast, at 40 HU over its diameter.
The field is `inside` the liver (parenchyma and vessels), or at its `edge` in about half of the patients, with fat,
ribs, kidney, bowel or lung beyond: normal images then differ far more from one another than a lesion changes one.
Contrasts and diameters share their livers, vessels and noise, so that a curve's points differ in the lesion alone.
Each detector has a process of its own with one thread and ten minutes of its core; a row is added to
benchmarks/results/anomaly_phantoms.csv as soon as its lesions are scored, and rows that are there are not made again.
Detectors that look through a GAN share one of the healthy livers (kept in runs/anomaly_phantoms; its time is its own).
The unlabelled mix that some learn from is the training patients, 100 other healthy livers and 54 with lesions.
`plot` draws docs/figures/anomaly_phantoms.png.
"""

from __future__ import annotations

import argparse
import csv
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from phantom_gan import gan_of
from rows import append

from pipeline.anomaly.detect import scores_of
from pipeline.anomaly.detector import Detector, ImageSet, Normals, Setting
from pipeline.anomaly.detectors import DETECTORS
from pipeline.config.anomaly import AnomalyConfig
from pipeline.core.compute import Hardware
from pipeline.core.files import atomic_path
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.core.usage import peak_mib
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.phantoms.planted import liver_patch
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.pixels import pixel_figures
from pipeline.measures.resampling import Spread, interval, patient_weights
from pipeline.nets.sizes import ImageShape

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "anomaly_phantoms.csv"
KEPT = ROOT / "runs" / "anomaly_phantoms"
PLOT = ROOT / "docs" / "figures" / "anomaly_phantoms.png"
DEFAULT = ("pca", "padim", "patchcore", "knn", "mahalanobis")
CONTRASTS_HU, DIAMETERS_MM = (10, 20, 40, 60, 100), (4, 8, 12, 16, 24)
FIXED_CONTRAST_HU, FIXED_DIAMETER_MM = 40, 16
FIELDS = ("inside", "edge")
TRAIN, VAL, TEST = 300, 60, 150
MIXED_HEALTHY, MIXED_LESIONS = 100, 6
"""Of the unlabelled mix: healthy livers, and those with a lesion of each cell."""
SPACING_MM, SIDE = 1.5, 64
SCALING = Scaling(1.0, 0.0, "HU", (-60.0, 200.0), "int16")
MOST_SECONDS = 600
DRAWS = 2000
TITLES = {"inside": "fields inside the liver", "edge": "half of the fields at its edge"}
MARKERS = "osD^vPX*<>"
GROUPS = (("gan",), ("autoencoding",), ("features", "plain", "self-supervised"))
"""Of detectors, as they share a row of the plot."""
COLUMNS = [
    "field", "detector", "seed", "contrast_hu", "diameter_mm", "auroc", "low", "high", "pixel_auroc", "aupro",
    "n_healthy", "n_lesions", "train_images", "fit_seconds", "score_seconds", "peak_mib",
]  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Lesions darker than the liver by `contrast_hu`, `diameter_mm` wide."""

    contrast_hu: int
    diameter_mm: int


def cells() -> list[Cell]:
    """Both sweeps, which cross in one cell."""
    swept = [Cell(contrast, FIXED_DIAMETER_MM) for contrast in CONTRASTS_HU]
    return swept + [Cell(FIXED_CONTRAST_HU, diameter) for diameter in DIAMETERS_MM if diameter != FIXED_DIAMETER_MM]


def livers(field: str, name: str, num: int, seed: int, cell: Cell | None = None) -> tuple[ImageSet, np.ndarray]:
    """Patches of the patients of `name`, healthy or with a lesion, and the lesions' masks [num, side, side].

    They are simulated once and kept in runs/anomaly_phantoms.
    """
    lesion = {"diameter_mm": float(cell.diameter_mm), "contrast_hu": -float(cell.contrast_hu)} if cell else {}
    path = KEPT / f"{field}-{name}-{num}-{seed}{''.join(f'-{value:g}' for value in lesion.values())}.npz"
    if not path.is_file():
        inside = {"spacing_mm": SPACING_MM, "surroundings": field == "edge"}
        found = [
            liver_patch(np.random.default_rng(derive_seed(seed, name, number)), 2, **inside, **lesion)
            for number in range(num)
        ]
        images = np.stack([np.rint(one.image) for one in found]).astype(np.int16)[:, None]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, images=images, masks=np.stack([one.mask for one in found]))
    with np.load(path) as kept:
        images, masks = kept["images"], kept["masks"]
    ids = [f"{name}-{number}" for number in range(num)]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": "lesion" if cell else "healthy"})
    return ImageSet(DataSet(Path(name), table, images, SCALING), np.arange(num)), masks


def normals(field: str, seed: int) -> Normals:
    """Training, validation and mixed patients, all in one data set."""
    parts = [livers(field, "train", TRAIN, seed), livers(field, "val", VAL, seed),
             livers(field, "mixed", MIXED_HEALTHY, seed)]  # fmt: skip
    parts += [livers(field, "mixed-lesions", MIXED_LESIONS, seed, cell) for cell in cells()]
    images = np.concatenate([found.dataset.images for found, _ in parts])
    ids = [f"liver-{number}" for number in range(len(images))]
    table = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": "unknown"})
    dataset, rows = DataSet(Path("livers"), table, images, SCALING), np.arange(len(images))
    known = TRAIN + VAL
    mixed = np.concatenate([rows[:TRAIN], rows[known:]])
    return Normals(ImageSet(dataset, rows[:TRAIN]), ImageSet(dataset, rows[TRAIN:known]), ImageSet(dataset, mixed))


def gan_for(field: str, seed: int) -> Path:
    """The GAN of the healthy training livers, trained where it is not there."""
    told = normals(field, seed)
    train, val = (told.train.dataset.images[images.rows] for images in (told.train, told.val))
    return gan_of(KEPT / f"{field}-gan-{seed}", train, val, SCALING, derive_seed(seed, "gan"))


def fit(field: str, name: str, seed: int) -> tuple[Detector, float]:
    told = normals(field, seed)
    gan = gan_for(field, seed) if DETECTORS[name].needs_gan else None
    shape = ImageShape((SIDE, SIDE), 1, 2)
    config = AnomalyConfig(detectors=())
    setting = Setting(config, shape, ("healthy",), Hardware("cpu", "float32"), derive_seed(seed, "fit"), gan)
    detector = DETECTORS[name].make(setting)
    started = time.monotonic()
    detector.fit(told)
    return detector.eval(), time.monotonic() - started


def measure(field: str, name: str, seed: int) -> None:
    """Fit one detector and add the rows of all cells that are not there."""
    use_threads(1)
    detector, took = fit(field, name, seed)
    healthy, nothing = livers(field, "healthy", TEST, seed)
    normal = scores_of(detector, healthy, f"{name} on healthy livers")
    normal_maps = maps_of(detector, healthy)
    for cell in cells():
        if is_there(field, name, seed, cell):
            continue
        lesions, masks = livers(field, "lesions", TEST, seed, cell)
        started = time.monotonic()
        score = np.concatenate([normal, scores_of(detector, lesions, f"{name} on lesions")])
        seconds = time.monotonic() - started
        figures = auroc_of(score, np.repeat([False, True], TEST), seed)
        if normal_maps is not None:
            maps, truth = np.concatenate([normal_maps, maps_of(detector, lesions)]), np.concatenate([nothing, masks])
            found = pixel_figures(maps, truth)
            figures |= {"pixel_auroc": f"{found.auroc:.4f}", "aupro": f"{found.aupro:.4f}"}
        append(TABLE, [{
            "field": field, "detector": name, "seed": seed, "contrast_hu": cell.contrast_hu,
            "diameter_mm": cell.diameter_mm, "n_healthy": TEST, "n_lesions": TEST,
            "train_images": TRAIN, "fit_seconds": f"{took:.1f}", "score_seconds": f"{seconds:.2f}",
            "peak_mib": round(peak_mib()), **figures,
        }], COLUMNS)  # fmt: skip


def auroc_of(score: np.ndarray, lesion: np.ndarray, seed: int) -> dict[str, str]:
    """AUROC with its interval of 95 % over patients, one image each; no interval where nothing scatters."""
    weights = patient_weights(np.arange(len(score)), DRAWS, numpy_generator(seed, "patients"), lesion.astype(int))
    value = float(weighted_auroc(score, lesion, np.ones((1, len(score))))[0])
    spread = Spread(float(np.var(weighted_auroc(score, lesion, weights), ddof=1)), len(score) - 1)
    bounds = interval(value, [spread], 0.05).within(0.0, 1.0)
    named = {"auroc": value, "low": bounds.low, "high": bounds.high}
    return {name: "" if one is None else f"{one:.4f}" for name, one in named.items()}


def maps_of(detector: Detector, images: ImageSet) -> np.ndarray | None:
    """[N, side, side]; None where the detector cannot say where."""
    found = []
    with torch.inference_mode():
        for block in images.blocks():
            maps = detector.map(block)
            if maps is None:
                return None
            found.append(maps.float().numpy())
    return np.concatenate(found)


def is_there(field: str, name: str, seed: int, cell: Cell) -> bool:
    if not TABLE.is_file():
        return False
    with TABLE.open(encoding="utf-8") as handle:
        return any(
            (row["field"], row["detector"], row["seed"], row["contrast_hu"], row["diameter_mm"])
            == (field, name, str(seed), str(cell.contrast_hu), str(cell.diameter_mm))
            for row in csv.DictReader(handle)
        )


def draw() -> None:
    """AUROC against contrast and against diameter: a row a field and group, a line a detector, the mean over seeds.

    Bars are the interval over patients of a single seed.
    """
    table = pd.read_csv(TABLE).assign(group=lambda rows: rows["detector"].map(lambda name: DETECTORS[name].group))
    parts = [
        (f"{TITLES[field]}\n{', '.join(groups)}", rows)
        for field in FIELDS
        for groups in GROUPS
        if len(rows := table[(table["field"] == field) & table["group"].isin(groups)])
    ]
    figure = Figure(figsize=(10, 3 * len(parts)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 2, sharey=True, sharex="col", squeeze=False)
    sweeps = (
        ("contrast_hu", "diameter_mm", FIXED_DIAMETER_MM, f"darker by (HU); {FIXED_DIAMETER_MM} mm wide"),
        ("diameter_mm", "contrast_hu", FIXED_CONTRAST_HU, f"diameter (mm); {FIXED_CONTRAST_HU} HU darker"),
    )
    for (title, rows), row in zip(parts, axes, strict=True):
        for axis, (swept, fixed, value, _) in zip(row, sweeps, strict=True):
            _draw_sweep(axis, rows[rows[fixed] == value], swept)
        row[0].set_ylabel(f"AUROC, {title}", fontsize=8)
        row[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axis, (*_, label) in zip(axes[-1], sweeps, strict=True):
        axis.set_xlabel(label)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def _draw_sweep(axis: Axes, rows: pd.DataFrame, swept: str) -> None:
    names, step = list(dict.fromkeys(rows["detector"])), 0.006 * rows[swept].max()
    for number, name in enumerate(names):
        own = rows[rows["detector"] == name]
        means = own.groupby(swept)[["auroc", "low", "high"]].mean()
        bars = [means["auroc"] - means["low"], means["high"] - means["auroc"]] if own["seed"].nunique() == 1 else None
        axis.errorbar(
            means.index + step * (number - (len(names) - 1) / 2), means["auroc"], bars, label=name,
            marker=MARKERS[number % len(MARKERS)], markersize=5, capsize=2, linewidth=1.2,
        )  # fmt: skip
    axis.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xticks(sorted(rows[swept].unique()))
    axis.set_ylim(0.38, 1.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detectors", nargs="*", default=list(DEFAULT))
    parser.add_argument("--field", choices=FIELDS, default=FIELDS[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--one", type=int, help="fit the one detector in this process, under this seed")
    asked = parser.parse_args()
    if asked.detectors == ["plot"]:
        draw()
        return
    if asked.detectors == ["gan"]:
        use_threads(1)
        gan_for(asked.field, asked.one or 0)
        return
    if asked.one is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        measure(asked.field, asked.detectors[0], asked.one)
        return
    for seed in range(asked.seeds):
        here = ["--field", asked.field, "--one", str(seed)]
        if any(DETECTORS[name].needs_gan for name in asked.detectors):
            subprocess.run([sys.executable, __file__, "gan", *here], check=True)
        for name in asked.detectors:
            if not all(is_there(asked.field, name, seed, cell) for cell in cells()):
                ended = subprocess.run([sys.executable, __file__, name, *here], check=False)
                if ended.returncode == -signal.SIGKILL:
                    print(f"{name}: not ready after {MOST_SECONDS} s of its core; its rows so far are kept")
    if TABLE.is_file():
        print(pd.read_csv(TABLE).to_string(index=False))


if __name__ == "__main__":
    main()
