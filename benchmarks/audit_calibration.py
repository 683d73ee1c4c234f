"""How often does the audit err? Generators whose memory is known, on phantoms: the release decision of each.

Run: .venv/bin/python benchmarks/audit_calibration.py [GENERATOR ...] [--draws 100] [--members 120] | table | plot

A draw takes members, as many unseen patients (a third of them for validation) and fresh patients, all different, from
3,000 simulated liver lesions of three classes (one a patient, 16 x 16 pixels of 3 mm); the generator shows twice as
many images as there are members. `healthy` shows fresh patients: it has learned the distribution and remembers nobody.
All others replay members (`replay`), change what they replay, or replay a few among fresh ones. The attacks are the
defaults, the gate is the run's own. A row is added to benchmarks/results/audit_calibration.csv as soon as a draw is
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
from rows import append

from pipeline.config.experiment import ReleaseConfig
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.files import atomic_path
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.data.phantoms.lesions import CLASSES, lesion_image
from pipeline.measures.near_copies import near_copies
from pipeline.measures.resampling import wilson_interval
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attack_stage import replayed
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.near_search import nearest_known
from pipeline.privacy.outcome import Rate, outcome_of, separation_of
from pipeline.verdict.release import release_verdict

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "audit_calibration.csv"
KEPT = ROOT / "runs" / "audit_calibration" / "pool.npy"
PLOT = ROOT / "docs" / "figures" / "audit_calibration.png"
POOL, SIDE, FIELD_MM = 3000, 16, 48
SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")
PRIVACY = PrivacyConfig()
COLUMNS = ["generator", "members", "draw", "decision", "near_copies", "reason", *PRIVACY.attacks]
PLANTED: dict[int, Rate] = {}
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Generator:
    """What a generator replays, how it changes it, and which share of its images is replayed."""

    change: Change = lambda images, random: images
    share: float = 1.0
    promised: bool = True
    words: str = ""


def _noise(sd: float) -> Change:
    return lambda images, random: images + sd * random.standard_normal(images.shape).astype(np.float32)


def _shift(most: int) -> Change:
    def change(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        by = random.integers(-most, most + 1, (len(images), 2))
        wide = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
        return np.stack([
            one[:, most + y : most + y + SIDE, most + x : most + x + SIDE] for one, (y, x) in zip(wide, by, strict=True)
        ])  # fmt: skip

    return change


GENERATORS = {
    "healthy": Generator(share=0.0, words="fresh patients"),
    "replay": Generator(words="members as they are"),
    "replay-5%": Generator(share=0.05, words="members as they are, 5 % of the images; else fresh patients"),
    "noisy": Generator(_noise(0.1), words="members with noise of 0.1 (13 of 255 grey levels)"),
    "shifted": Generator(_shift(2), words="members shifted by up to 2 pixels of 16"),
    "mirrored": Generator(lambda images, random: images[..., ::-1].copy(), words="members mirrored"),
    "contrast": Generator(lambda images, random: 0.6 * images + 0.2, words="members, contrast x 0.6 and brighter"),
    "very-noisy": Generator(_noise(0.4), promised=False, words="members with noise of 0.4 (51 grey levels)"),
    "noisy-5%": Generator(_noise(0.4), 0.05, False, "members with noise of 0.4, 5 % of the images"),
    "far-shifted": Generator(_shift(5), promised=False, words="members shifted by up to 5 pixels"),
    "means": Generator(
        lambda images, random: (images + images[random.permutation(len(images))]) / 2, promised=False,
        words="means of two members",
    ),
}  # fmt: skip


def pool() -> np.ndarray:
    """Lesions [POOL, 1, SIDE, SIDE] in [-1, 1], image i of class i mod 3; simulated once."""
    if not KEPT.is_file():
        made = []
        for number in range(POOL):
            lesion = lesion_image(np.random.default_rng(derive_seed(0, "pool", number)), CLASSES[number % 3])
            middle = (round(axis.mean()) - FIELD_MM // 2 for axis in np.nonzero(lesion.mask))
            row, col = (int(np.clip(one, 0, 96 - FIELD_MM)) for one in middle)
            patch = torch.from_numpy(lesion.image[row : row + FIELD_MM, col : col + FIELD_MM].copy()).float()
            made.append(F.adaptive_avg_pool2d(patch[None], SIDE).numpy())
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(KEPT) as temporary, temporary.open("wb") as handle:
            np.save(handle, (np.clip(np.stack(made), -60, 200) - 70) / 130)
    return np.load(KEPT).astype(np.float32)


def judge(name: str, members: int, draw: int, images: np.ndarray) -> dict[str, object]:
    """One draw's row."""
    random, seed = numpy_generator(0, "draw", members, draw), derive_seed(0, "audit", members, draw)
    third = members // 3
    parts = [random.permutation(np.arange(one, POOL, 3))[: 4 * third] for one in range(3)]
    seen, unseen = (np.concatenate([part[at : at + third] for part in parts]) for at in (0, third))
    fresh = np.concatenate([part[2 * third : 4 * third] for part in parts])
    generator = GENERATORS[name]
    size = len(fresh)
    copied = seen[random.integers(0, len(seen), max(round(generator.share * size), 0))]
    made = np.concatenate([generator.change(images[copied], random), images[fresh[len(copied) :]]]).clip(-1, 1)
    rows = np.sort(np.concatenate([seen, unseen]))
    label = np.array(CLASSES)[rows % 3]
    candidates = Candidates(_images(images, rows), label, np.arange(len(rows)))
    member = np.isin(rows, seen)
    records = [_look(made, images, seen, unseen[::3])]
    figures = {}
    for attack in PRIVACY.attacks:
        records.append(_attack(attack, made, candidates, member, derive_seed(seed, attack)))
        figures[attack] = f"{records[-1].extra['outcome']['rates'][0]['value']:.4f}"
    found = release_verdict(records, ReleaseConfig(), PRIVACY)
    return {
        "generator": name, "members": members, "draw": draw, "decision": found["decision"],
        "near_copies": records[0].figures["near_copies"], "reason": found["reasons"][0], **figures,
    }  # fmt: skip


def _images(images: np.ndarray, rows: np.ndarray) -> Images:
    return Images(DataSet(Path("pool"), pd.DataFrame(index=range(len(images))), images, SCALING), rows)


def _look(made: np.ndarray, images: np.ndarray, seen: np.ndarray, val: np.ndarray) -> Record:
    """What the stage `privacy` says of near copies."""
    sets = _images(made, np.arange(len(made))), _images(images, seen), _images(images, val)
    copies = near_copies(*(one.distance for one in nearest_known(*sets, Hardware("cpu", "float32"), 0)))
    figures = {"near_copies": copies.share, "near_copies_low": copies.low, "near_copies_control": copies.control}
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
    outcome = outcome_of(scores(_images(made, np.arange(len(made)))), *who, numpy_generator(seed, "outcome"), "auroc")
    extra = {"outcome": outcome.as_json(), "planted": asdict(planted), "lacking": "", "gates": True, "weights": "one"}
    return Record("attack", fold=0, gan_seed=0, variant=name, extra=extra)


def measure(names: list[str], members: int, draws: int) -> None:
    images = pool()
    done = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    there = set(zip(done["generator"], done["members"], done["draw"], strict=True))
    for draw in range(draws):
        for name in names:
            if (name, members, draw) not in there:
                append(TABLE, [judge(name, members, draw, images)], COLUMNS)


def shares() -> pd.DataFrame:
    """Shares of the decisions, a row for each generator and number of members, with Wilson's intervals."""
    rows = []
    for (name, members), part in pd.read_csv(TABLE).groupby(["generator", "members"], sort=False):
        row = {"generator": name, "members": members, "draws": len(part)}
        for decision in ("release", "refuse", "not_audited"):
            count = int((part["decision"] == decision).sum())
            low, high = wilson_interval(count, len(part), 0.05)
            row |= {decision: count / len(part), f"{decision}_low": low, f"{decision}_high": high}
        row |= {"auroc": part["distance"].mean(), "near_copies": part["near_copies"].mean()}
        rows.append(row)
    order = {name: place for place, name in enumerate(GENERATORS)}
    return pd.DataFrame(rows).sort_values(["members", "generator"], key=lambda one: one.map(order).fillna(one))


def table() -> None:
    print("| generator | members | draws | `release` | `refuse` (interval) | `not_audited` | AUROC | near copies |")
    print("|---|---|---|---|---|---|---|---|")
    for row in shares().to_dict("records"):
        refused = f"**{row['refuse']:.0%}** ({row['refuse_low']:.0%} to {row['refuse_high']:.0%})"
        print(
            f"| {row['generator']}: {GENERATORS[row['generator']].words} | {row['members']} | {row['draws']} | "
            f"{row['release']:.0%} | {refused} | {row['not_audited']:.0%} | {row['auroc']:.2f} | "
            f"{row['near_copies']:.0%} |"
        )


def plot() -> None:
    found = shares()
    sizes = sorted(found["members"].unique())
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    found = found.iloc[::-1]
    left = np.zeros(len(found))
    for decision, colour in (("release", "#2a7f62"), ("not_audited", "#c9c4b8"), ("refuse", "#b3423a")):
        axis.barh(range(len(found)), found[decision], left=left, color=colour, label=decision.replace("_", " "))
        left += found[decision].to_numpy()
    names = [f"{name} ({size})" for name, size in found[["generator", "members"]].to_numpy()]
    axis.set_yticks(range(len(found)), names)
    axis.set(xlim=(0, 1), xlabel="share of the draws", title="Release decisions of generators whose memory is known")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    print(f"members: {', '.join(map(str, sizes))}")
    with atomic_path(PLOT) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*GENERATORS])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--members", type=int, default=120)
    asked = parser.parse_args()
    use_threads(1)
    if asked.names == ["table"]:
        table()
    elif asked.names == ["plot"]:
        plot()
    else:
        measure(asked.names, asked.members, asked.draws)


if __name__ == "__main__":
    main()
