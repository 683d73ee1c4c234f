"""Does the gate refuse a real GAN that was trained on few images until it copies them? And how does it see one of many?

Run: .venv/bin/python benchmarks/audit_gans.py [--runs 5] [--members 30] | table | lira

A spectrally normalised GAN (`sngan`, width 32, no augmentation, no watch) is trained on so many simulated liver lesions
(16 x 16 pixels, one a patient), and judged at each length of its training by 240 images, with 120 unseen patients: by
the default attacks and those that are named here. Nothing is planted: whether it copies is for the audit to say. A row
is added to benchmarks/results/audit_gans.csv as soon as it is judged; rows that are there are not made again.

`lira` trains one GAN on 60 patients beside 60 unseen ones, and eight shadows on halves of these 120, and prints
the AUROC of the attacks `distance`, `match`, `lira` and `latent-inversion` with their standard errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from audit_calibration import Cohort, images_of, judged, lesions
from rows import append

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.loop import GanTraining, sample, train
from pipeline.adversarial.weights import save_nets
from pipeline.config.families import validate_gan
from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import as_generator, condition_of
from pipeline.nets.sizes import ImageShape
from pipeline.privacy.attack import Candidates, Images, Target
from pipeline.privacy.attacks import ATTACKS
from pipeline.privacy.attacks.lira import likelihood_ratio
from pipeline.privacy.outcome import outcome_of

TABLE = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "audit_gans.csv"
LENGTHS, SHOWN, UNSEEN = (5_000, 20_000, 60_000), 240, 120
PRIVACY = PrivacyConfig(attacks=(*PrivacyConfig().attacks, "density", "embedding"))
GAN = {"family": "sngan", "num_images": LENGTHS[-1], "batch_size": 16, "augment_probability": 0.0, "latent_dim": 32,
       "generator_lr": 2e-4, "watch": {"checks": 0}}  # fmt: skip
COLUMNS = ["members", "run", "num_images", "decision", "near_copies", "copies", "reason", *PRIVACY.attacks]


def training_of(cohort: Cohort, seen: np.ndarray, seed: int) -> GanTraining:
    names = np.unique(cohort.label)
    stored = StoredImages(
        stored=torch.from_numpy(cohort.images[seen]),
        label=torch.from_numpy(np.searchsorted(names, cohort.label[seen])),
        scaling=Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32"),
    )
    shape = ImageShape(cohort.images.shape[2:], 1, len(names), 0)
    return assemble(validate_gan(GAN), stored, shape, Hardware("cpu", "float32"), seed)


def shown_by(training: GanTraining, classes: int, seed: int) -> np.ndarray:
    net = training.ema.nets["generator"]
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(SHOWN, as_generator(net).latent_dim, generator=random)
    with torch.no_grad():
        return sample(net, z, condition_of(torch.arange(SHOWN) % classes)).clamp(-1, 1).numpy()


def measure(runs: int, members: int) -> None:
    cohort = lesions()
    done = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    classes = len(np.unique(cohort.label))
    for run in range(runs):
        if ((done["members"] == members) & (done["run"] == run)).sum() == len(LENGTHS):
            continue
        random, seed = numpy_generator(0, "gans", members, run), derive_seed(0, "gan", members, run)
        parts = [random.permutation(np.flatnonzero(cohort.label == name)) for name in np.unique(cohort.label)]
        size, more = members // classes, UNSEEN // classes
        seen = np.concatenate([part[:size] for part in parts])
        unseen = np.concatenate([part[size : size + more] for part in parts])
        training = training_of(cohort, seen, seed)
        for length in LENGTHS:
            train(training, length, lambda _: None)
            row = judged(shown_by(training, classes, seed), cohort, seen, unseen, derive_seed(seed, "audit"), PRIVACY)
            append(TABLE, [{"members": members, "run": run, "num_images": length} | row], COLUMNS)


def lira(run: int) -> None:
    cohort, length, shadows = lesions(), LENGTHS[0], 8
    seed = derive_seed(0, "lira", run)
    chosen = numpy_generator(seed, "patients").permutation(len(cohort.label))[:120]
    member, classes = np.arange(120) < 60, len(np.unique(cohort.label))

    def made(seen: np.ndarray, number: int) -> tuple[GanTraining, Images]:
        training = training_of(cohort, seen, derive_seed(seed, number))
        train(training, length, lambda _: None)
        return training, images_of(shown_by(training, classes, derive_seed(seed, number, "shown")), np.arange(SHOWN))

    candidates = Candidates(images_of(cohort.images, chosen), cohort.label[chosen], np.arange(120))

    def scores(attack: str, shown: Images) -> np.ndarray:
        return ATTACKS[attack].scores(Target(shown, PRIVACY, Hardware("cpu", "float32"), 0), candidates)

    training, own = made(chosen[member], -1)
    halves = [numpy_generator(seed, "half", pair).permutation(120) % 2 == 0 for pair in range(shadows // 2)]
    known = np.stack([half == side for half in halves for side in (True, False)])
    near = np.stack([scores("distance", made(chosen[half], number)[1]) for number, half in enumerate(known)])
    found = {name: scores(name, own) for name in ("distance", "match")}
    found["lira"] = likelihood_ratio(found["distance"], near, known)
    found["latent-inversion"] = inverted(training, cohort, candidates)
    for name, score in found.items():
        outcome = outcome_of(score, member, candidates.label, np.arange(120), numpy_generator(seed, name), "auroc")
        rate = outcome.rate("auroc", "patient")
        print(f"run {run}: {name} {rate.value:.3f} ± {rate.error:.3f}", flush=True)


def inverted(training: GanTraining, cohort: Cohort, candidates: Candidates) -> np.ndarray:
    """The scores of the attack that holds the generator."""
    described = {
        "gan": validate_gan(GAN).model_dump(mode="json"), "classes": list(np.unique(cohort.label)), "positive": [],
        "spatial_size": list(cohort.images.shape[2:]), "channels": 1,
    }  # fmt: skip
    with TemporaryDirectory() as place:
        save_nets(Path(place), {"generator": training.ema.nets["generator"]}, described)
        target = Target(candidates.images, PRIVACY, Hardware("cpu", "float32"), 0, {"fit-gan": Path(place)})
        return ATTACKS["latent-inversion"].scores(target, candidates)


def table() -> None:
    attacks = ", ".join(PRIVACY.attacks)
    print(f"| members | images shown to the GAN | runs | `refuse` | `release` | near copies | AUROC: {attacks} |")
    print("|---|---|---|---|---|---|---|")
    for (members, length), part in pd.read_csv(TABLE).groupby(["members", "num_images"]):
        shares = [f"{int((part['decision'] == one).sum())} of {len(part)}" for one in ("refuse", "release")]
        spread = [
            f"{part[one].mean():.2f}" + (f" ± {part[one].std():.2f}" if len(part) > 1 else "")
            for one in PRIVACY.attacks
        ]
        copies = f"{part['near_copies'].min():.0%} to {part['near_copies'].max():.0%}"
        print(f"| {members} | {length:,} | {len(part)} | {' | '.join(shares)} | {copies} | {', '.join(spread)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["table", "lira"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--members", type=int, default=30)
    asked = parser.parse_args()
    use_threads(1)
    if asked.what == "table":
        table()
    elif asked.what == "lira":
        for run in range(asked.runs):
            lira(run)
    else:
        measure(asked.runs, asked.members)


if __name__ == "__main__":
    main()
