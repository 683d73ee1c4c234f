"""How often does the audit err? Generators whose memory is known, on phantoms: the release decision of each.

Run: .venv/bin/python benchmarks/audit_calibration.py [GENERATOR ...] [--cohort lesions] [--draws 100] [--first 200]
     [--members 120] [--also embedding] | table | plot

A draw takes members, as many unseen patients (a third of them for validation) and fresh patients, all different, one
image each, of a cohort: 3,000 simulated liver lesions of three classes (16 x 16 pixels of 3 mm), the chest X-rays of
`nih-cxr-normal-vs-pneumonia-256` (32 x 32) or the volumes of `adrenalmnist3d` (14 x 14 x 14). The generator shows twice
as many images as there are members. `healthy` shows fresh patients: it has learned the distribution and remembers
nobody. All others replay members (`replay`), change what they replay, or replay a few among fresh ones. The attacks are
the defaults, the gate is the run's own. A row is added to benchmarks/results/audit_calibration.csv as soon as a draw is
judged, and rows that are there are not made again. `table` prints what docs/privacy.md has, `plot` draws
docs/figures/audit_calibration.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rows import append

from pipeline.config.experiment import ReleaseConfig
from pipeline.config.loading import data_root
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.files import atomic_path
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.phantoms.lesions import CLASSES, lesion_image
from pipeline.measures.resampling import wilson_interval
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attack_stage import replayed
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.copies import judge_copies
from pipeline.privacy.outcome import Rate, outcome_of, separation_of
from pipeline.verdict.release import release_verdict

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "audit_calibration.csv"
KEPT = ROOT / "runs" / "audit_calibration"
PLOT = ROOT / "docs" / "figures" / "audit_calibration.png"
POOL, SIDE, FIELD_MM = 3000, 16, 48
SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")
PRIVACY = PrivacyConfig()
FIRST = 200
"""Draws 0 to 199 were those of two earlier gates, whose errors led to this one."""
COLUMNS = [
    "cohort",
    "generator",
    "members",
    "draw",
    "decision",
    "near_copies",
    "copies",
    "reason",
    *PRIVACY.attacks,
    "also",
    "embedding",
]
PLANTED: dict[int, Rate] = {}
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Generator:
    """What a generator replays, how it changes it, and which share of its images is replayed."""

    change: Change = lambda images, random: images
    share: float = 1.0
    promised: bool = True
    words: str = ""
    flat_only: bool = False


def _noise(sd: float) -> Change:
    return lambda images, random: images + sd * random.standard_normal(images.shape).astype(np.float32)


def _shift(most: int) -> Change:
    def change(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        by = random.integers(-most, most + 1, (len(images), 2))
        wide = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
        return np.stack([
            one[:, most + y : most + y + images.shape[2], most + x : most + x + images.shape[3]]
            for one, (y, x) in zip(wide, by, strict=True)
        ])  # fmt: skip

    return change


GENERATORS = {
    "healthy": Generator(share=0.0, words="fresh patients"),
    "replay": Generator(words="members as they are"),
    "replay-5%": Generator(share=0.05, words="members as they are, 5 % of the images; else fresh patients"),
    "noisy": Generator(_noise(0.1), words="members with noise of 0.1 (13 of 255 grey levels)"),
    "shifted": Generator(_shift(2), words="members shifted by up to 2 pixels of 16", flat_only=True),
    "mirrored": Generator(lambda images, random: images[..., ::-1].copy(), words="members mirrored"),
    "contrast": Generator(lambda images, random: 0.6 * images + 0.2, words="members, contrast x 0.6 and brighter"),
    "very-noisy": Generator(_noise(0.4), promised=False, words="members with noise of 0.4 (51 grey levels)"),
    "noisy-5%": Generator(_noise(0.4), 0.05, False, "members with noise of 0.4, 5 % of the images"),
    "far-shifted": Generator(_shift(5), promised=False, words="members shifted by up to 5 pixels", flat_only=True),
    "means": Generator(
        lambda images, random: (images + images[random.permutation(len(images))]) / 2, promised=False,
        words="means of two members",
    ),
}  # fmt: skip


def pool() -> np.ndarray:
    """POOL lesions, simulated once."""
    return simulated("pool", POOL)


def simulated(name: str, number: int) -> np.ndarray:
    """Lesions [number, 1, SIDE, SIDE] in [-1, 1], image i of class i mod 3; kept for the next time."""
    kept = KEPT / f"{name}-{number}.npy"
    if not kept.is_file():
        made = []
        for at in range(number):
            lesion = lesion_image(np.random.default_rng(derive_seed(0, name, at)), CLASSES[at % 3])
            if not lesion.mask.any():  # smaller than a voxel
                lesion.mask[48, 48] = 1
            middle = (round(axis.mean()) - FIELD_MM // 2 for axis in np.nonzero(lesion.mask))
            row, col = (int(np.clip(one, 0, 96 - FIELD_MM)) for one in middle)
            patch = torch.from_numpy(lesion.image[row : row + FIELD_MM, col : col + FIELD_MM].copy()).float()
            made.append(F.adaptive_avg_pool2d(patch[None], SIDE).numpy())
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as temporary, temporary.open("wb") as handle:
            np.save(handle, (np.clip(np.stack(made), -60, 200) - 70) / 130)
    return np.load(kept).astype(np.float32)


@dataclass(frozen=True)
class Cohort:
    """Images [N, 1, *spatial] in [-1, 1] of N patients, and their classes [N]."""

    images: np.ndarray
    label: np.ndarray

    def parts(self, members: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Members, as many unseen patients and twice as many fresh ones, all different; as many of each class."""
        names = np.unique(self.label)
        size = members // len(names)
        drawn = [random.permutation(np.flatnonzero(self.label == name))[: 4 * size] for name in names]
        assert min(map(len, drawn)) == 4 * size, "the cohort has too few patients"
        seen, unseen, fresh = ([part[at : at + more] for part in drawn]
                               for at, more in ((0, size), (size, size), (2 * size, 2 * size)))  # fmt: skip
        return np.concatenate(seen), np.concatenate(unseen), np.concatenate(fresh)


def lesions() -> Cohort:
    return Cohort(pool(), np.array(CLASSES)[np.arange(POOL) % 3])


def xrays() -> Cohort:
    """One chest X-ray a patient of NIH ChestX-ray8, 32 x 32; of patients with one class alone."""
    place = data_root() / "nih-cxr-normal-vs-pneumonia-256"
    table = pd.read_csv(place / "labels.csv", dtype=str)
    table = table[table.groupby("patient_id")["class"].transform("nunique") == 1].drop_duplicates("patient_id")
    read = [np.asarray(Image.open(place / one).convert("L").resize((32, 32), Image.Resampling.BOX))
            for one in table["file"]]  # fmt: skip
    return Cohort(np.stack(read)[:, None].astype(np.float32) / 127.5 - 1, table["class"].to_numpy(dtype=str))


def volumes() -> Cohort:
    """Adrenal glands of AdrenalMNIST3D, of which a patient may have two, averaged down to 14 x 14 x 14."""
    pack = np.load(data_root() / "adrenalmnist3d" / "adrenalmnist3d.npz")
    images, label = (np.concatenate([pack[f"{part}_{what}"] for part in ("train", "val", "test")])
                     for what in ("images", "labels"))  # fmt: skip
    grid = F.avg_pool3d(torch.from_numpy(images[:, None].astype(np.float32) / 127.5 - 1), 2)
    return Cohort(grid.numpy(), label.reshape(-1).astype(str))


COHORTS: dict[str, Callable[[], Cohort]] = {"lesions": lesions, "xrays": xrays, "volumes": volumes}


def judge(name: str, members: int, draw: int, cohort: Cohort, which: str, also: str = "") -> dict[str, object]:
    """One draw's row."""
    random, seed = numpy_generator(0, "draw", members, draw), derive_seed(0, "audit", which, members, draw)
    seen, unseen, fresh = cohort.parts(members, random)
    generator, images, size = GENERATORS[name], cohort.images, len(fresh)
    copied = seen[random.integers(0, len(seen), max(round(generator.share * size), 0))]
    made = np.concatenate([generator.change(images[copied], random), images[fresh[len(copied) :]]]).clip(-1, 1)
    row = {"cohort": which, "generator": name, "members": members, "draw": draw, "also": also}
    privacy = PRIVACY.model_copy(update={"attacks": (*PRIVACY.attacks, also)}) if also else PRIVACY
    return row | judged(made, cohort, seen, unseen, seed, privacy)


def judged(
    made: np.ndarray, cohort: Cohort, seen: np.ndarray, unseen: np.ndarray, seed: int, privacy: PrivacyConfig = PRIVACY
) -> dict[str, object]:
    """The decision on a generator that learned from `seen` and shows `made`; a third of `unseen` is validation."""
    images, rows = cohort.images, np.sort(np.concatenate([seen, unseen]))
    candidates = Candidates(images_of(images, rows), cohort.label[rows], np.arange(len(rows)))
    member = np.isin(rows, seen)
    records = [_look(made, images, seen, unseen)]
    figures = {}
    for attack in privacy.attacks:
        records.append(_attack(attack, made, candidates, member, derive_seed(seed, attack)))
        figures[attack] = f"{records[-1].extra['outcome']['rates'][0]['value']:.4f}"
    found = release_verdict(records, ReleaseConfig(), privacy)
    return {
        "decision": found["decision"], "near_copies": records[0].figures["near_copies"],
        "copies": records[0].figures["copies"], "reason": found["reasons"][0],
        **figures,
    }  # fmt: skip


def images_of(images: np.ndarray, rows: np.ndarray) -> Images:
    table = pd.DataFrame({"image_id": range(len(images)), "patient_id": ""})
    return Images(DataSet(Path("pool"), table, images, SCALING), rows)


def _look(made: np.ndarray, images: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> Record:
    """What the stage `privacy` says of near copies."""
    sets = images_of(made, np.arange(len(made))), images_of(images, seen), images_of(images, unseen)
    figures = judge_copies(*sets, Hardware("cpu", "float32"), 0).figures() | {"synthetic_images": len(made)}
    return Record("privacy", fold=0, gan_seed=0, figures=figures)


def _attack(name: str, made: np.ndarray, candidates: Candidates, member: np.ndarray, seed: int) -> Record:
    def scores(shown: Images) -> np.ndarray:
        return ATTACKS[name].scores(Target(shown, PRIVACY, Hardware("cpu", "float32"), seed), candidates)

    who = (member, candidates.label, candidates.patient)
    if seed not in PLANTED:  # the same whatever the generator shows
        real = candidates.images
        leak = Images(real.dataset, real.rows[member], replayed, seed)
        PLANTED[seed] = separation_of(scores(leak), *who, numpy_generator(seed, "planted"))
    planted = PLANTED[seed]
    outcome = outcome_of(scores(images_of(made, np.arange(len(made)))), *who, numpy_generator(seed, "outcome"), "auroc")
    extra = {"outcome": outcome.as_json(), "planted": asdict(planted), "lacking": "", "gates": True, "weights": "one"}
    return Record("attack", fold=0, gan_seed=0, variant=name, extra=extra)


def measure(names: list[str], which: str, members: int, draws: range, also: str) -> None:
    cohort = COHORTS[which]()
    done = pd.read_csv(TABLE, dtype={"also": str}) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    keys = ["cohort", "generator", "members", "draw", "also"]
    there = set(done[keys].fillna("").itertuples(index=False, name=None))
    flat = cohort.images.ndim == 4
    for draw in draws:
        for name in (one for one in names if flat or not GENERATORS[one].flat_only):
            if (which, name, members, draw, also) not in there:
                append(TABLE, [judge(name, members, draw, cohort, which, also)], COLUMNS)


def shares() -> pd.DataFrame:
    """Shares of the decisions, a row for each cohort, number of members and generator, with Wilson's intervals."""
    rows = []
    found = pd.read_csv(TABLE, dtype={"also": str}).fillna({"also": ""})
    for (which, name, members, also), part in found.groupby(["cohort", "generator", "members", "also"], sort=False):
        row = {"cohort": which, "generator": name, "members": members, "draws": len(part), "also": also}
        for decision in ("release", "refuse", "not_audited"):
            count = int((part["decision"] == decision).sum())
            low, high = wilson_interval(count, len(part), 0.05)
            row |= {decision: count / len(part), f"{decision}_low": low, f"{decision}_high": high}
        rows.append(row | {name: part[name].mean() for name in ("distance", "match", "near_copies")})
    order = {name: place for place, name in enumerate([*COHORTS, *GENERATORS])}
    rows.sort(key=lambda row: (row["also"], order[row["cohort"]], row["members"], order[row["generator"]]))
    return pd.DataFrame(rows)


def table() -> None:
    print(
        "| images | generator | members | draws | `release` | `refuse` (interval) | `not_audited` "
        "| AUROC of `distance`, `match` | near copies |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in shares().to_dict("records"):
        also = row["also"] and f" (with `{row['also']}`)"
        refused = f"**{row['refuse']:.0%}** ({row['refuse_low']:.0%} to {row['refuse_high']:.0%})"
        print(
            f"| {row['cohort']} | {row['generator']}: {GENERATORS[row['generator']].words}"
            f"{also} | {row['members']} | "
            f"{row['draws']} | "
            f"{row['release']:.0%} | {refused} | {row['not_audited']:.0%} | "
            f"{row['distance']:.2f}, {row['match']:.2f} | {row['near_copies']:.0%} |"
        )


def plot() -> None:
    found = shares()
    found = found[found["also"] == ""]
    sizes = sorted(found["members"].unique())
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    found = found.iloc[::-1]
    left = np.zeros(len(found))
    for decision, colour in (("release", "#2a7f62"), ("not_audited", "#c9c4b8"), ("refuse", "#b3423a")):
        axis.barh(range(len(found)), found[decision], left=left, color=colour, label=decision.replace("_", " "))
        left += found[decision].to_numpy()
    names = [f"{which}: {name} ({size})" for which, name, size in found[["cohort", "generator", "members"]].to_numpy()]
    axis.set_yticks(range(len(found)), names)
    axis.set(xlim=(0, 1), ylim=(-0.7, len(found) - 0.3), xlabel="share of the draws")
    axis.set_title("Release decisions of generators whose memory is known")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, frameon=False)
    print(f"members: {', '.join(map(str, sizes))}")
    with atomic_path(PLOT) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*GENERATORS])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--members", type=int, default=120)
    parser.add_argument("--also", default="", choices=["", "embedding"])
    parser.add_argument("--cohort", choices=[*COHORTS], default="lesions")
    asked = parser.parse_args()
    use_threads(1)
    if asked.names == ["table"]:
        table()
    elif asked.names == ["plot"]:
        plot()
    else:
        draws = range(asked.first, asked.first + asked.draws)
        measure(asked.names, asked.cohort, asked.members, draws, asked.also)


if __name__ == "__main__":
    main()
