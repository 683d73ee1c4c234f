"""How often does the gate before the verdict call a healthy generator failed, and how often does a failed one pass?

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/generator_gate.py real|train|judge|table [SETTING ...]

`real` prepares the settings' images, `train` the generators in `TRAINED` (minutes each), `judge` measures and writes
benchmarks/results/generator_gate.csv, `table` prints the table of docs/verdict.md. Generators are also the sample grids
of docs/figures/families (8 images a class of trainings at full length; of volumes the three planes that the extractor
sees). The gate's own code judges each case against 50 training images a class and ten draws of 10, 20, 36 and 50 real
images that no generator saw, as a small study would have them. The limits were set on the settings in `DEVELOPMENT`;
the others only tell how often they err.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from families import prepared
from PIL import Image
from rows import append
from scipy import stats

from flows.plan import Step
from pipeline.adversarial.pictures import save_grid
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.metrics import MetricRow, as_text
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.cohort.folds import split_ids
from pipeline.measures.kernel_distance import kid
from pipeline.measures.twins import low_resolution, near_distance, twins
from pipeline.nets.extractors import EffNetLite0
from pipeline.quality.ceiling import worthless_images
from pipeline.synthesis.generate import TrainedGenerator
from pipeline.verdict.gate import FAILED, NOT_JUDGED, look_at

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "generator_gate.csv"
GRIDS = ROOT / "docs" / "figures" / "families"
SMALL_3D = [
    "data.spatial_size=16", "gan.batch_size=16", "gan.generator_width=16", "gan.discriminator_width=16",
    "gan.watch.checks=4", "compute.precision=float32",
]  # fmt: skip
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "xray-32": ("pneumoniamnist.yaml", ["data.train_per_class=null"]),
    "liver-32": ("demo.yaml", []),
    "nih-32": ("nih-cxr.yaml", ["data.spatial_size=32"]),
    "nih-64": ("nih-cxr.yaml", []),
    "organs-3d": ("ct-organs3d.yaml", SMALL_3D),
    "liver-3d": ("demo-3d.yaml", []),
}
DEVELOPMENT = ("xray-32",)
NARROW = ("gan.batch_size=8", "gan.generator_width=8", "gan.discriminator_width=8")
TRAINED: tuple[tuple[Any, ...], ...] = (
    ("xray-32", "sngan", 1500), ("xray-32", "sngan", 24000), ("nih-32", "sngan", 1500), ("organs-3d", "vae-gan", 400),
    ("organs-3d", "vae-gan", 2400), ("nih-32", "sngan", 12000), ("liver-32", "sngan", 1500),
    ("liver-32", "sngan", 100000), ("liver-3d", "sngan", 16000), ("liver-3d", "vae-gan", 6000, *NARROW),
    ("nih-32", "vae-gan", 12000),
)  # fmt: skip
"""Setting, family, real images shown, and what else is changed."""
GRID_SETTINGS = {"xray-32-": "xray-32", "xray-64-": "nih-64", "liver-3d-32-": "liver-3d"}
FROM_MASKS = ("cyclegan", "pix2pix", "spade", "stargan")
"""Families that change images or draw on masks: they make no noise samples, and the gate does not judge them."""
BY_EYE = {
    "xray-32--sngan--1500": "early", "xray-32--sngan--24000": "early", "nih-32--sngan--1500": "early",
    "organs-3d--vae-gan--400": "early",
    "xray-32-gan": "poor", "xray-32-wgan": "poor", "xray-64-sngan": "poor", "xray-64-100-sngan": "poor",
    "xray-64-stylegan2": "poor", "xray-64-100-stylegan2": "poor", "xray-64-biggan": "early",
    "xray-64-100-biggan": "early",
    "nih-32--sngan--12000": "early", "nih-32--vae-gan--12000": "early",
    "liver-32--sngan--1500": "early", "liver-32--sngan--100000": "healthy",
    "liver-3d--sngan--16000": "poor", "liver-3d--vae-gan--6000": "poor", "liver-3d-32-vae-gan": "healthy",
    "liver-3d-32-biggan": "poor", "liver-3d-32-stylegan2": "poor", "liver-3d-32-sagan": "poor",
    "liver-3d-32-gan": "poor", "liver-3d-32-dcgan": "poor",
    "liver-3d-32-sngan": "early", "liver-3d-32-cgan": "early", "liver-3d-32-vae": "early", "liver-3d-32-wgan": "early",
    "liver-3d-32-wgan-gp": "early", "liver-3d-32-cogan": "early", "liver-3d-32-ssgan": "early",
    "liver-3d-32-s3gan": "early", "liver-3d-32-progan": "early",
}  # fmt: skip
"""What docs/families.md says of a grid, and what we see in the others: grainy, woven or soft at full length is `poor`,
cut short or not learnt is `early` (60,000 images are the full length of `xray-32`); others are healthy. A label is
written before the place is known."""
FOREIGN = {
    "xray-32": ("nih-64", "liver-32"), "liver-32": ("xray-32", "nih-32"), "nih-32": ("liver-32", "xray-32"),
    "nih-64": ("xray-32", "liver-32"), "organs-3d": (),
    "liver-3d": (),
}  # fmt: skip
FAILURES = ("blank", "shuffled", "collapsed", "early", "foreign")
KINDS = ("real", "healthy", "poor", *FAILURES)
VALIDATION, DRAWS, TRAIN = (10, 20, 36, 50), 10, 50
COLUMNS = (
    "setting", "part", "kind", "name", "validation", "draws", "failed", "not_judged", "place", "place_low",
    "place_high", "repeats",
)  # fmt: skip


@dataclass(frozen=True)
class Images:
    """Images with their classes, and their features once they are known.

    Attributes:
        pixels: [N, C, *spatial] in [-1, 1]; [N, 0] where the case is judged by its features alone.
        label: [N].
        features: [N, 1280], or None where the case is judged by its repeats alone.
    """

    pixels: np.ndarray
    label: np.ndarray
    features: np.ndarray | None = None

    def at(self, rows: np.ndarray) -> Images:
        return Images(self.pixels[rows], self.label[rows], None if self.features is None else self.features[rows])


def experiment_of(setting: str, *changes: str) -> Experiment:
    config, own = SETTINGS[setting]
    return load_experiment(ROOT / "configs" / config, [*changes, *own])


def write_real(setting: str, work: Path) -> None:
    """At most 1,200 images of each split."""
    experiment = experiment_of(setting, "gan.family=sngan")
    directories, _ = prepared(experiment, work / "cache")
    dataset = open_dataset(directories["prepare"])
    parts: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        rows = dataset.rows(split_ids(directories["split"], 0, split))
        rows = np.random.default_rng(0).permutation(rows)[:1200]
        parts[split] = dataset.tensor(rows).numpy().astype(np.float16)
        parts[f"{split}_label"] = dataset.manifest["label"].iloc[rows].to_numpy().astype(str)
    np.savez_compressed(work / f"{setting}--real.npz", **parts)  # type: ignore[arg-type]


def write_generator(work: Path, setting: str, family: str, num_images: int, *changes: str) -> None:
    """Train one generator, and keep 200 images a class and a grid to be looked at."""
    torch.set_num_threads(1)
    own = [f"gan.family={family}", f"gan.num_images={num_images}", "gan.snapshots=2", "gan.checkpoints=2"]
    experiment = experiment_of(setting, *own, *changes)
    directories, steps = prepared(experiment, work / "cache")
    step: Step = next(step for step in steps if step.name.startswith("fit-gan"))
    generator = TrainedGenerator(execute(step.stage(directories), work / "cache").directory, directories)
    made = {
        name: np.stack([image for _, image in generator.images(name, 200, seed=2)]) for name in experiment.data.classes
    }
    place = work / f"{setting}--{family}--{num_images}"
    np.savez_compressed(place.with_suffix(".npz"), **{n: i.astype(np.float16) for n, i in made.items()})  # type: ignore[arg-type]
    save_grid(place.with_suffix(".png"), np.concatenate([images[:8] for images in made.values()]), 8)


def with_features(images: Images, place: Path) -> Images:
    """The images with their features, from the file `place` where they were made before."""
    if not place.is_file():
        place.parent.mkdir(exist_ok=True)
        features = EffNetLite0().extract(torch.from_numpy(images.pixels.astype(np.float32))).numpy()
        np.savez(place, f=features, label=images.label)
    return Images(images.pixels, images.label, np.load(place)["f"])


def first_of_each(pixels: np.ndarray, label: np.ndarray, number: int) -> Images:
    rows = np.concatenate([np.flatnonzero(label == name)[:number] for name in sorted(set(label))])
    return Images(pixels[rows].astype(np.float32), label[rows])


def real_sets(setting: str, work: Path) -> tuple[Images, Images]:
    """150 training images a class, and 100 of validation and test patients, which no generator saw."""
    with np.load(work / f"{setting}--real.npz") as stored:
        train = first_of_each(stored["train"], stored["train_label"], 150)
        held = [np.concatenate([stored[f"val{part}"], stored[f"test{part}"]]) for part in ("", "_label")]
    features = work / "feat"
    return (
        with_features(train, features / f"{setting}--train.npz"),
        with_features(first_of_each(held[0], held[1], 100), features / f"{setting}--held.npz"),
    )


def grid_images(path: Path, classes: list[str]) -> Images:
    """The eight images a class of a grid; volumes that are empty but for the three middle planes that it shows."""
    pixels = np.asarray(Image.open(path)).astype(np.float32) / 127.5 - 1
    factor = 1 if "64" in path.stem else 2
    planes = 3 if "3d" in path.stem else 1
    height = 64 * planes
    tiles = [pixels[(height + 2) * row : (height + 2) * row + height : factor, 66 * column : 66 * column + 64 : factor]
             for row in range(len(classes)) for column in range(8)]  # fmt: skip
    images = np.stack(tiles if planes == 1 else [_volume(*np.split(tile, 3)) for tile in tiles])
    return Images(images[:, None], np.repeat(classes, 8))


def _volume(axial: np.ndarray, coronal: np.ndarray, sagittal: np.ndarray) -> np.ndarray:
    """The three planes where `orthogonal_planes` took them from; the extractor sees nothing else."""
    volume = np.zeros((len(axial),) * 3, dtype=np.float32)
    middle = len(axial) // 2
    volume[:, :, middle] = axial.T[::-1, ::-1]
    volume[:, middle] = coronal.T[::-1, ::-1]
    volume[middle] = sagittal.T[::-1, ::-1]
    return volume


def generators(setting: str, work: Path) -> Iterator[tuple[str, str, Images]]:
    """Kind, name and images of every generator of the setting that is there."""
    for trained, family, number, *_ in TRAINED:
        name = f"{trained}--{family}--{number}"
        if trained == setting and (work / f"{name}.npz").is_file():
            with np.load(work / f"{name}.npz") as stored:
                classes = sorted(stored.files)
                pixels = np.concatenate([stored[one][:150] for one in classes]).astype(np.float32)
                label = np.concatenate([[one] * min(150, len(stored[one])) for one in classes])
            yield BY_EYE.get(name, "healthy"), name, with_features(Images(pixels, label), work / "feat" / f"{name}.npz")
    for start, of in GRID_SETTINGS.items():
        for path in sorted(GRIDS.glob(f"{start}*.png")) if of == setting else ():
            if path.stem.removeprefix(start) not in ("real", *FROM_MASKS):
                classes = list(experiment_of(setting).data.classes)
                images = with_features(grid_images(path, classes), work / "feat" / f"grid-{path.stem}.npz")
                if images.pixels.ndim > 4:
                    images = Images(np.empty((len(images.label), 0)), images.label, images.features)
                yield BY_EYE.get(path.stem, "healthy"), f"grid {path.stem}", images


def planted(setting: str, train: Images, held: Images, work: Path) -> Iterator[tuple[str, str, Images]]:
    """Failures that are made, and real images as the generator that cannot be bettered."""
    features = work / "feat"
    for name, pixels in worthless_images(torch.from_numpy(train.pixels[:120]), seed=1).items():
        label = train.label[: len(pixels)] if name == "shuffled" else np.array(["all"] * len(pixels))
        images = Images(pixels.numpy(), label)
        yield name, name, with_features(images, features / f"{setting}--planted-{name}.npz")
    random = np.random.default_rng(0)
    for modes in (1, 2, 4):
        rows = np.concatenate([
            random.choice(np.flatnonzero(train.label == name), modes, replace=False)[np.arange(60) % modes]
            for name in sorted(set(train.label))
        ])  # fmt: skip
        noisy = train.pixels[rows] + 0.03 * random.standard_normal(train.pixels[rows].shape)
        yield "collapsed", f"{modes} images a class", Images(noisy.astype(np.float32), train.label[rows])
    for other in FOREIGN[setting]:
        foreign = real_sets(other, work)[1]
        own = sorted(set(train.label))
        label = np.array([own[place % len(own)] for place in range(len(foreign.label))])
        yield "foreign", f"real images of {other}", Images(foreign.pixels, label, foreign.features)
    half = np.arange(0, len(held.label), 2)
    yield "real", "real images", held.at(half)


def figures_of(case: Images, train: Images, held: Images, ends: Mapping[str, np.ndarray]) -> list[MetricRow]:
    """The rows that the gate reads, of all images and of each class, as the stage `quality` makes them."""
    rows: list[MetricRow] = []
    for label in ("all", *sorted(set(train.label))):

        def own(images: Images, label: str = label) -> Images:
            return images if label == "all" else images.at(np.flatnonzero(images.label == label))

        mine, real, floor = own(case), own(train), own(held)
        assert real.features is not None and floor.features is not None
        found: dict[str, tuple[float, ...]] = {f"kid_{name}": kid(real.features, made) for name, made in ends.items()}
        if len(floor.label) > 2:
            found["kid_floor"] = kid(real.features, floor.features)
        if mine.features is not None and len(mine.features) > 2:
            found["kid"] = kid(real.features, mine.features)
        if label != "all" and len(mine.label) > 1 and mine.pixels.size:
            found["repeats"] = (_repeats(real.pixels, mine.pixels),)
        rows += [_row(label, name, values, len(floor.label)) for name, values in found.items()]
    return rows


def _repeats(real: np.ndarray, made: np.ndarray) -> float:
    number = min(len(real), len(made), 200)
    one, two = (torch.from_numpy(part[:number].astype(np.float32)) for part in (real, made))
    return float(twins(low_resolution(two), near_distance(low_resolution(one))).double().mean())


def _row(label: str, name: str, values: tuple[float, ...], number: int) -> MetricRow:
    value, low, high = (*values, None, None)[:3]
    return MetricRow(
        stage="quality", fold="0", gan_seed="0", label=label, metric=name, value=as_text(value), ci_low=as_text(low),
        ci_high=as_text(high), n_images=str(number),
    )  # fmt: skip


def judge(setting: str, work: Path) -> Iterator[dict[str, Any]]:
    train, held = real_sets(setting, work)
    small = train.at(np.concatenate([np.flatnonzero(train.label == name)[:TRAIN] for name in sorted(set(train.label))]))
    cases = [*planted(setting, train, held, work), *generators(setting, work)]
    ends = {
        name: images.features
        for _, name, images in cases
        if name in ("blank", "shuffled") and images.features is not None
    }
    unseen = held.at(np.arange(1, len(held.label), 2))
    for kind, name, images in cases:
        for number in VALIDATION:
            random = np.random.default_rng(number)
            looks = []
            for _ in range(DRAWS):
                drawn = random.permutation(len(unseen.label))[:number]
                looks.append(look_at(figures_of(images, small, unseen.at(drawn), ends), "0", "0"))
            places = [look.place for look in looks if look.place is not None]
            yield {
                "setting": setting, "part": "development" if setting in DEVELOPMENT else "held out", "kind": kind,
                "name": name, "validation": number, "draws": DRAWS,
                "failed": sum(look.state == FAILED for look in looks),
                "not_judged": sum(look.state == NOT_JUDGED for look in looks),
                "place": f"{np.mean(places):.3f}" if places else "",
                "place_low": f"{min(places):.3f}" if places else "",
                "place_high": f"{max(places):.3f}" if places else "",
                "repeats": f"{looks[0].repeats:.3f}" if looks[0].repeats is not None else "",
            }  # fmt: skip


def table() -> None:
    """Error rates of both parts, a line a kind; the interval is Wilson's over generators, at 36 validation images."""
    rows = pd.read_csv(TABLE)
    rows = rows.assign(wrong=np.where(rows["kind"].isin(FAILURES), rows["draws"] - rows["failed"], rows["failed"]))
    print("| part | generators | cases | place (at 36) | error | at 10 | 20 | 36 | 50 | not judged at 10 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for part in ("development", "held out"):
        for kind in KINDS:
            own = rows[(rows["part"] == part) & (rows["kind"] == kind)]
            if own.empty:
                continue
            at = {number: own[own["validation"] == number] for number in VALIDATION}
            shares = [f"{100 * one['wrong'].sum() / one['draws'].sum():.0f} %" for one in at.values()]
            known = at[36]["place"].dropna()
            least, most = (round(float(known.agg(end)), 2) + 0.0 for end in ("min", "max"))
            places = f"{least:.2f} to {most:.2f}" if len(known) else "–"
            unsure = 100 * at[10]["not_judged"].sum() / at[10]["draws"].sum()
            error = "let pass" if kind in FAILURES else "called failed"
            print(f"| {part} | {kind} | {len(at[36])} | {places} | {error} | {' | '.join(shares)} | {unsure:.0f} % |")
        for title, kinds in (("healthy called failed", ("real", "healthy")), ("failed let pass", FAILURES)):
            own = rows[(rows["part"] == part) & rows["kind"].isin(kinds) & (rows["validation"] == 36)]
            wrong = int((own["wrong"] > own["draws"] / 2).sum())
            low, high = stats.binomtest(wrong, len(own)).proportion_ci(method="wilson")
            print(f"{part}: {title} {wrong} of {len(own)} ({100 * low:.0f} to {100 * high:.0f} %)", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["real", "train", "judge", "table"])
    parser.add_argument("settings", nargs="*", default=[*SETTINGS])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gate")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    for setting in arguments.settings if arguments.what != "table" else ():
        if arguments.what == "real":
            write_real(setting, work)
        elif arguments.what == "train":
            for case in TRAINED:
                if case[0] == setting:
                    write_generator(work, *case)
        else:
            append(TABLE, list(judge(setting, work)), COLUMNS)
    if arguments.what == "table":
        table()


if __name__ == "__main__":
    main()
