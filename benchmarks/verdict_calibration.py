"""How often does the verdict say `helps` where nothing helps, and how often where something does?

Predictions of simulated readers whose truth is known. Patients are clustered (1 to 3 images each, whose difficulty
all fits share in part), classifier seeds scatter, and so do GAN seeds (each shifts all its classifiers) and folds (each
shifts both arms, and a part of them the arms' difference: a labelled draw's own effect). `gain` is added to the
augmented arm's separation. A null is a gain of 0 on average over GAN seeds, folds and draws.

Run: .venv/bin/python benchmarks/verdict_calibration.py CASE [--simulations 1000]

Each case adds its row to benchmarks/results/verdict_calibration.csv; `plot` draws docs/figures/verdict-*.png.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rows import append
from scipy import stats

from pipeline.verdict import VerdictPlan, decide

REFERENCE, AUGMENTED = "real+classical", "real+classical+synthetic@1"
ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "verdict_calibration.csv"
FIGURES = ROOT / "docs" / "figures"
DECISIONS = ("helps", "harms", "no_benefit", "inconclusive")


@dataclass(frozen=True)
class World:
    """What is true in a simulation.

    Attributes:
        gain: added to the augmented arm's separation; `difference` in the table says what that is in the endpoint.
        layout: holdout, kfold (other patients in every fold), or draws (the same test patients in every fold).
        images: a patient has 1 to so many.
        one_in: one patient in so many is diseased.
        fit_sd, gan_sd, fold_sd: scatter of classifier seeds, GAN seeds, and folds' effects.
    """

    patients: int = 60
    seeds: int = 3
    gan_seeds: int = 1
    folds: int = 1
    layout: str = "holdout"
    endpoint: str = "auroc"
    separation: float = 1.5
    images: int = 3
    one_in: int = 2
    gain: float = 0.0
    fit_sd: float = 0.25
    gan_sd: float = 0.0
    fold_sd: float = 0.0


CASES: dict[str, World] = {
    "null-20": World(patients=20),
    "null-60": World(),
    "null-200": World(patients=200),
    "null-easy": World(patients=60, separation=3.5),
    "null-2-seeds": World(seeds=2),
    "null-6-seeds": World(seeds=6),
    "null-quiet-seeds": World(fit_sd=0.02, patients=200),
    "null-gan-seeds": World(gan_seeds=3, seeds=2, gan_sd=0.25, fit_sd=0.15),
    "null-kfold": World(folds=3, layout="kfold", patients=90, fit_sd=0.15, gan_sd=0.0),
    "null-draws": World(folds=5, layout="draws", fold_sd=0.2, seeds=2),
    "null-rare-disease": World(patients=150, one_in=10),
    "null-many-images": World(patients=40, images=12),
    "null-8-draws-1-seed": World(folds=8, layout="draws", fold_sd=0.2, seeds=1),
    "null-sensitivity": World(endpoint="sensitivity", patients=120),
    "null-specificity-kfold": World(endpoint="specificity", folds=3, layout="kfold", patients=120),
    **{f"power-auroc-{n}": World(patients=n, gain=0.4, fit_sd=0.1, seeds=4) for n in (30, 60, 120, 240, 480)},
    **{
        f"power-sensitivity-{n}": World(patients=n, gain=0.4, fit_sd=0.1, seeds=4, endpoint="sensitivity")
        for n in (30, 60, 120, 240, 480)
    },
    **{
        f"fits-sensitivity-{n}": World(patients=240, gain=0.4, fit_sd=0.1, seeds=n, endpoint="sensitivity")
        for n in (8, 16)
    },
}
MARGINS = {
    f"margin-{n}": World(patients=n, images=1, separation=2.5, gain=0.408, fit_sd=0.02) for n in (20, 36, 100, 300)
}
"""A true gain of 2 points of AUROC, which is the margin: `no_benefit` is wrong, and 2.5 to 5 % of it are expected."""
CASES |= MARGINS
PLAN = VerdictPlan(positive=("disease",), bootstrap=400)


def simulate(world: World, seed: int) -> pd.DataFrame:
    """Predictions of both arms on val and test, one row an image and fit."""
    random = np.random.default_rng(seed)
    shared = _people(world, random, "test")
    tables = []
    for fold in range(world.folds):
        test = (
            shared if world.layout != "kfold" else _people(world, random, f"test{fold}", world.patients // world.folds)
        )
        both = {"val": _people(world, random, f"val{fold}"), "test": test}
        level, effect = 0.1 * random.normal(), world.fold_sd * random.normal()
        for arm in (REFERENCE, AUGMENTED):
            augmented = arm == AUGMENTED
            for gan_seed in range(world.gan_seeds if augmented else 1):
                shift = world.gain + effect + world.gan_sd * random.normal() if augmented else 0.0
                for number in range(world.seeds):
                    separation = world.separation + level + shift + world.fit_sd * random.normal()
                    key = {"arm": arm, "fold": str(fold), "seed": str(number), "gan_seed": str(gan_seed) * augmented}
                    tables += [
                        _judged(people, separation, random).assign(split=name, **key) for name, people in both.items()
                    ]
    return pd.concat(tables, ignore_index=True)


def _people(world: World, random: np.random.Generator, name: str, patients: int = 0) -> pd.DataFrame:
    """Images of patients, one in `world.one_in` diseased, with the difficulty that all readers see."""
    patients = patients or world.patients
    owner = np.repeat(np.arange(patients), random.integers(1, world.images + 1, patients))
    difficulty = random.normal(size=patients)[owner] * 0.8 + random.normal(size=len(owner)) * 0.5
    names = np.char.add(f"{name}-", owner.astype(str))
    ids = np.char.add(np.char.add(names, "-"), np.arange(len(owner)).astype(str))
    return pd.DataFrame(
        {"patient_id": names, "image_id": ids, "diseased": owner % world.one_in == 0, "difficulty": difficulty}
    )


def _judged(people: pd.DataFrame, separation: float, random: np.random.Generator) -> pd.DataFrame:
    logit = people["difficulty"] + separation * people["diseased"] + 0.4 * random.normal(size=len(people))
    label = np.where(people["diseased"], "disease", "normal")
    score = 1 / (1 + np.exp(-logit))
    return people[["patient_id", "image_id"]].assign(label=label, score_disease=score, score_normal=1 - score)


def row(name: str, world: World, simulations: int) -> dict[str, object]:
    plan = replace(PLAN, endpoint=world.endpoint)
    found = [decide(simulate(world, seed), plan) for seed in range(simulations)]
    counts = {decision: sum(one.decision == decision for one in found) for decision in DECISIONS}
    low, high = stats.binomtest(counts["helps"], simulations).proportion_ci(method="wilson")
    differences = np.array([one.evidence["difference"] for one in found])
    truth = differences.mean()
    bounds = np.array([[one.evidence[key] for key in ("ci_low", "ci_high", "bca_low", "bca_high")] for one in found])
    bounds = bounds.astype(float)
    covered = [np.mean((bounds[:, at] <= truth) & (truth <= bounds[:, at + 1])) for at in (0, 2)]
    return {
        "case": name, "endpoint": world.endpoint, "layout": world.layout, "patients": world.patients,
        "seeds": world.seeds, "gan_seeds": world.gan_seeds, "folds": world.folds, "gain": world.gain,
        "difference": round(float(truth), 4), "simulations": simulations,
        **{decision: round(count / simulations, 4) for decision, count in counts.items()},
        "helps_low": round(float(low), 4), "helps_high": round(float(high), 4),
        "bca_alone": round(float(np.mean(bounds[:, 2] > 0)), 4),
        "t_alone": round(float(np.mean(bounds[:, 0] > 0)), 4),
        "covered_t": round(float(covered[0]), 4), "covered_bca": round(float(covered[1]), 4),
    }  # fmt: skip


def plot() -> None:
    """False `helps` of every null with its interval; power over the number of patients."""
    rows = pd.read_csv(TABLE)
    nulls = rows[rows["gain"] == 0].iloc[::-1]
    figure, axis = plt.subplots(figsize=(6.4, 0.32 * len(nulls) + 1.2))
    spans = [nulls["helps"] - nulls["helps_low"], nulls["helps_high"] - nulls["helps"]]
    axis.errorbar(100 * nulls["helps"], nulls["case"], xerr=100 * np.array(spans), fmt="s", ms=4, color="tab:blue")
    axis.axvline(5, color="tab:red", linestyle="--", linewidth=1)
    axis.set(xlabel="false 'helps' (% of simulated nulls, 95 % interval); dashed: 5 %", xlim=(0, 6.5))
    figure.tight_layout()
    figure.savefig(FIGURES / "verdict-nulls.png", dpi=120)
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for endpoint, mine in rows[rows["case"].str.startswith("power")].groupby("endpoint"):
        mine = mine.sort_values("patients")
        label = f"{endpoint}: {100 * mine['difference'].mean():+.1f} points"
        axis.plot(mine["patients"], 100 * mine["helps"], marker="o", ms=4, label=label)
        axis.fill_between(mine["patients"], 100 * mine["helps_low"], 100 * mine["helps_high"], alpha=0.2)
    axis.set(xscale="log", xlabel="test patients", ylabel="'helps' (% of simulations)", ylim=(0, 100))
    axis.set_xticks([30, 60, 120, 240, 480], labels=["30", "60", "120", "240", "480"])
    axis.minorticks_off()
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(FIGURES / "verdict-power.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="+", choices=[*CASES, "nulls", "powers", "margins", "plot"])
    parser.add_argument("--simulations", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.case == ["plot"]:
        plot()
        return
    groups = {"nulls": [name for name in CASES if name.startswith("null")]}
    groups["margins"] = list(MARGINS)
    groups["powers"] = [name for name in CASES if name.startswith("power")]
    done = set(pd.read_csv(TABLE)["case"]) if TABLE.is_file() else set()
    for name in [case for asked in arguments.case for case in groups.get(asked, [asked])]:
        if name not in done:
            found = row(name, CASES[name], arguments.simulations)
            append(TABLE, [found], list(found))
            print(found, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
