"""Does a translator between sites add or remove lesions? Phantoms know both kernels' images of one scan.

The sharp kernel's site has nine cysts to a metastasis, the soft one's nine metastases to a cyst. Three CycleGANs learn
from the same scans of different patients: `as collected` sees each site's class mix and no class (the trap of Cohen et
al., MICCAI 2018), `within class` is `between: sites`, and `answers kept` adds the semantic term. On held-out patients,
half cysts and half metastases, their sharp-to-soft translations are compared with the true soft scans, beside the
untranslated sharp ones:

`mae_hu`; `lesion_hu`: mean difference of a lesion's contrast (its mean less that of the ring around it) from the true
one, class by class, so that a cyst that becomes a metastasis shows; `removed`: share of lesions whose contrast is below
half of the true one (or has the other sign); `added`: share of scans with a spot away from the lesion that the truth
does not have, more than half of the usual contrast after a blur of 2 pixels. Intervals: 95 %, bootstrap over patients.

Run: .venv/bin/python benchmarks/site_translation.py [2d 3d] [--images N]

Each translator is trained on one thread; rows go to benchmarks/results/site_translation.csv, a picture to
docs/figures/site-translation-2d.png.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from rows import append
from scipy.ndimage import binary_dilation, gaussian_filter
from translation import PICTURES, ROOT, SCALING, SIDE, SPACING_MM, WINDOW, Row, bootstrap, mean

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import sample, train
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.data.batches.streams import StoredImages
from pipeline.data.phantoms.cohort import lesion_image
from pipeline.nets.conditions import Condition, as_generator
from pipeline.nets.sizes import ImageShape

TABLE = ROOT / "benchmarks" / "results" / "site_translation.csv"
FIELDS = ("case", "num_images", "cpu_seconds", "measure", "method", "value", "low", "high", "number", "detail")
CYST, METASTASIS = 0, 1
NAMES = ("cyst", "metastasis")
PATIENTS, HELD_OUT = {2: 200, 3: 40}, {2: 100, 3: 20}
"""Of each site, and held out."""
BLUR, SHOWN = 2.0, 8
METHODS = {
    "as collected": {},
    "within class": {"by_site": True, "between": "sites"},
    "answers kept": {"by_site": True, "between": "sites", "semantic": 1.0, "cycle_noise": 0.02},
}


@dataclass(frozen=True)
class Scans:
    """Of N lesions, each [N, *spatial]: both kernels in HU, the lesion's mask; and the class [N]."""

    sharp: np.ndarray
    soft: np.ndarray
    mask: np.ndarray
    kind: np.ndarray


def scans(first: int, kinds: np.ndarray, dims: Literal[2, 3]) -> Scans:
    """Patients from number `first` on with lesions of `kinds`, cut to 48 mm around the lesion."""
    found = []
    for number, kind in enumerate(kinds, start=first):
        lesion = lesion_image(np.random.default_rng([12, number]), NAMES[kind], dims, spacing_mm=SPACING_MM)
        centre = np.argwhere(lesion.mask).mean(axis=0) if lesion.mask.any() else np.array(lesion.mask.shape) / 2
        start = np.clip(np.round(centre - SIDE / 2), 0, np.array(lesion.mask.shape) - SIDE).astype(int)
        box = tuple(slice(low, low + SIDE) for low in start)
        found.append((lesion.sharp[box], lesion.image[box], lesion.mask[box].astype(bool)))
    sharp, soft, mask = (np.stack(parts) for parts in zip(*found, strict=True))
    sharp, soft = (np.clip(images, *WINDOW).astype(np.float32) for images in (sharp, soft))
    return Scans(sharp, soft, mask, kinds)


def mixed(number: int, cysts: float) -> np.ndarray:
    return np.where(np.arange(number) % 10 < 10 * cysts, CYST, METASTASIS)


def translated(method: str, sharp: Scans, soft: Scans, held: Scans, dims: Literal[2, 3], images: int) -> np.ndarray:
    """The held-out sharp scans as soft ones [N, *spatial] in HU, by a translator trained on the other two sets."""
    by_class = "between" in METHODS[method]
    pixels = torch.from_numpy(np.concatenate([sharp.sharp, soft.soft])[:, None])
    site = torch.tensor([0] * len(sharp.kind) + [1] * len(soft.kind))
    label = 2 * site + torch.from_numpy(np.concatenate([sharp.kind, soft.kind])) if by_class else site
    shape = ImageShape((SIDE,) * dims, 1, 4 if by_class else 2, positive=(2, 3) if by_class else (1,))
    narrow = {"generator_width": 16, "discriminator_width": 16} if dims == 3 else {}
    gan = validate_gan({"family": "cyclegan", "num_images": images, "batch_size": 4, **narrow, **METHODS[method]})
    training = assemble(gan, StoredImages(pixels, label, SCALING), shape, Hardware("cpu", "float32"), seed=0)
    train(training, images, lambda _: None)
    generator = training.ema.nets["generator"]
    asked = torch.from_numpy(2 + held.kind) if by_class else torch.ones(len(held.kind), dtype=torch.int64)
    condition = Condition(asked, source=SCALING.to_model(torch.from_numpy(held.sharp[:, None])))
    made = sample(generator, torch.zeros(len(asked), as_generator(generator).latent_dim), condition)
    return np.asarray(SCALING.to_physical(made.numpy())[:, 0])


def contrasts(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean of each lesion less that of the ring of three voxels around it, in HU [N]."""
    rings = [binary_dilation(one, iterations=4) & ~binary_dilation(one) for one in mask]
    pairs = zip(images, mask, rings, strict=True)
    return np.array([image[lesion].mean() - image[ring].mean() for image, lesion, ring in pairs])


def spots(images: np.ndarray, held: Scans) -> np.ndarray:
    """The largest difference from the true soft scan away from the lesion, after a blur, in HU [N]."""
    found = []
    for image, true, lesion in zip(images, held.soft, held.mask, strict=True):
        away = ~binary_dilation(lesion, iterations=4)
        found.append(np.abs(gaussian_filter(image - true, BLUR, mode="nearest"))[away].max())
    return np.array(found)


def measured(method: str, images: np.ndarray, held: Scans) -> list[Row]:
    axes = tuple(range(1, images.ndim))
    true, own = contrasts(held.soft, held.mask), contrasts(images, held.mask)
    usual = float(np.median(np.abs(true)))
    rows = [{"measure": "mae_hu", "detail": "", **bootstrap(np.abs(images - held.soft).mean(axis=axes), mean)}]
    for kind, name in enumerate(NAMES):
        here = held.kind == kind
        rows.append({"measure": "lesion_hu", "detail": name, **bootstrap((own - true)[here], mean)})
        gone = (own * np.sign(true) < 0.5 * np.abs(true))[here]
        rows.append({"measure": "removed", "detail": name, **bootstrap(gone.astype(float), mean)})
    detail = f"more than {usual / 2:.0f} HU"
    rows.append(
        {"measure": "added", "detail": detail, **bootstrap((spots(images, held) > usual / 2).astype(float), mean)}
    )
    return [{"method": method, **row} for row in rows]


def save_picture(images: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(len(images), SHOWN, figsize=(SHOWN * 1.2, len(images) * 1.25))
    for row, (title, several) in zip(axes, images.items(), strict=True):
        for axis, image in zip(row, several, strict=False):
            axis.imshow(image, cmap="gray", vmin=-60, vmax=200)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(PICTURES / "site-translation-2d.png", dpi=90)
    plt.close(figure)


def run(dims: Literal[2, 3], images: int) -> None:
    number, held_out = PATIENTS[dims], HELD_OUT[dims]
    sharp, soft = scans(0, mixed(number, 0.9), dims), scans(number, mixed(number, 0.1), dims)
    held = scans(2 * number, np.arange(held_out) % 2, dims)
    shown, rows = {"sharp": held.sharp}, measured("sharp", held.sharp, held)
    for method in METHODS:
        started = time.process_time()
        shown[method] = translated(method, sharp, soft, held, dims, images)
        seconds = round(time.process_time() - started)
        rows += [{**row, "cpu_seconds": seconds} for row in measured(method, shown[method], held)]
    case = f"{dims}d"
    rows = [{"case": case, "num_images": images, "cpu_seconds": 0, **row} for row in rows]
    append(TABLE, rows, FIELDS)
    for row in rows:
        interval = f"{row['value']:>8} ({row['low']} to {row['high']}), n = {row['number']}"
        print(f"{case} {row['method']:<13} {row['measure']:<10} {interval} {row['detail']}", flush=True)
    if dims == 2:
        save_picture({title: several[:SHOWN] for title, several in (shown | {"soft (true)": held.soft}).items()})


def main() -> None:
    parser = argparse.ArgumentParser(description="Translators between phantom sites against the truth.")
    parser.add_argument("cases", nargs="*", choices=("2d", "3d"), default=["2d"])
    parser.add_argument("--images", type=int, default=4800)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for case in asked.cases:
        run(2 if case == "2d" else 3, asked.images)


if __name__ == "__main__":
    main()
