"""What `linkage` and `lira` can tell, where the truth is known.

    RADAUG_DATA=DATA .venv/bin/python benchmarks/attack_figures.py linkage [--draws 10]  # nih-cxr… in DATA; 20 s a draw
    .venv/bin/python benchmarks/attack_figures.py lira [--draws 10]                       # 10 s a draw
    .venv/bin/python benchmarks/attack_figures.py table

`linkage`: patients of NIH ChestX-ray8 with several images, 32 x 32, in two halves; the net learns on one half, and on
the other pairs of images of one patient are told from pairs of two patients, by its cosine and by the registered
distance. AUROCs are over all pairs; patients with more images have more of them.

`lira`: 120 members and 120 unseen patients of the lesions of benchmarks/audit_calibration.py, and a generator that is a
function of its members: each of 240 images is the mean of three of them, with noise of 0.05. Shadows are the same
function of random halves of the 240. Rows are added to benchmarks/results/attack_figures.csv as they come.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from audit_calibration import PRIVACY, ROOT, images_of, lesions
from PIL import Image
from rows import append

from pipeline.config.loading import data_root
from pipeline.core.compute import Hardware
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.measures.classification import weighted_auroc
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.attacks.lira import likelihood_ratio
from pipeline.privacy.likeness_net import embedded
from pipeline.privacy.registered import registered_distances
from pipeline.privacy.same_patient import fit_same_patient_net

TABLE = ROOT / "benchmarks" / "results" / "attack_figures.csv"
COLUMNS = ["what", "draw", "way", "auroc"]
CPU = Hardware("cpu", "float32")


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    return float(weighted_auroc(score, positive, np.ones((1, len(score))))[0])


def linkage(draw: int) -> Iterator[tuple[str, float]]:
    place = data_root() / "nih-cxr-normal-vs-pneumonia-256"
    table = pd.read_csv(place / "labels.csv", dtype=str)
    table = table[table.groupby("patient_id")["file"].transform("size") > 1].reset_index(drop=True)
    read = [np.asarray(Image.open(place / one).convert("L").resize((32, 32), Image.Resampling.BOX))
            for one in table["file"]]  # fmt: skip
    images = torch.from_numpy(np.stack(read)[:, None].astype(np.float32) / 127.5 - 1)
    patient = np.unique(table["patient_id"], return_inverse=True)[1]
    seed = derive_seed(0, "linkage", draw)
    learned = (numpy_generator(seed, "halves").permutation(patient.max() + 1) % 2 == 0)[patient]
    net = fit_same_patient_net(images[learned], patient[learned], CPU, seed)
    asked = images[~learned]
    pairs = np.triu_indices(len(asked), 1)
    same = (patient[~learned][:, None] == patient[~learned][None])[pairs]
    memory = embedded(net, [asked], "cpu")
    yield "net", auroc((memory @ memory.T).numpy()[pairs], same)
    yield "registered distance", auroc(-registered_distances([asked], [asked], "cpu")[pairs], same)


def lira(draw: int) -> Iterator[tuple[str, float]]:
    cohort, seed = lesions(), derive_seed(0, "lira-figures", draw)
    chosen = numpy_generator(seed, "patients").permutation(len(cohort.label))[:240]
    member = np.arange(240) < 120
    candidates = Candidates(images_of(cohort.images, chosen), cohort.label[chosen], np.arange(240))

    def generator(seen: np.ndarray, number: int) -> Images:
        random = numpy_generator(seed, "generator", number)
        three = cohort.images[random.choice(seen, (240, 3))].mean(axis=1)
        made = (three + 0.05 * random.standard_normal(three.shape)).clip(-1, 1).astype(np.float32)
        return images_of(made, np.arange(240))

    def scores(attack: str, shown: Images) -> np.ndarray:
        return ATTACKS[attack].scores(Target(shown, PRIVACY, CPU, 0), candidates)

    own = generator(chosen[member], -1)
    for attack in PRIVACY.attacks:
        yield attack, auroc(scores(attack, own), member)
    halves = [numpy_generator(seed, "half", pair).permutation(240) % 2 == 0 for pair in range(4)]
    known = np.stack([half == side for half in halves for side in (True, False)])
    near = np.stack([scores("distance", generator(chosen[half], number)) for number, half in enumerate(known)])
    for shadows in (4, 8):
        ratio = likelihood_ratio(scores("distance", own), near[:shadows], known[:shadows])
        yield f"lira, {shadows} shadows", auroc(ratio, member)


def table() -> None:
    for what, part in pd.read_csv(TABLE).groupby("what"):
        print(f"{what}, {part['draw'].nunique()} draws, AUROC, mean and SD:")
        for way, rows in part.groupby("way", sort=False):
            print(f"  {way}: {rows['auroc'].mean():.2f} ± {rows['auroc'].std():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["linkage", "lira", "table"])
    parser.add_argument("--draws", type=int, default=10)
    asked = parser.parse_args()
    if asked.what == "table":
        return table()
    use_threads(1)
    for draw in range(asked.draws):
        found = {"linkage": linkage, "lira": lira}[asked.what](draw)
        rows = [{"what": asked.what, "draw": draw, "way": way, "auroc": f"{value:.4f}"} for way, value in found]
        append(TABLE, rows, COLUMNS)
    return None


if __name__ == "__main__":
    main()
