"""The hunt: what really helps? Rows of whole runs, GAN arms beside their controls on the same patients.

Each row is one `radaug run` of a shipped configuration with the changes below, in a directory of its own; finished
stages come from the cache. Its comparisons go to benchmarks/results/hunt.csv, all of them, and `table` prints
docs/results.md's table. The test patients of a row are opened once, by that run. AUROC decides, as the configurations
say beforehand; sensitivity and specificity of the same pairs are told beside it.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/hunt.py ROW [ROW ...] | table | together ROW ROW ... [arm=…]
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from planted_scanners import plant
from rows import append

from pipeline.core.files import read_json
from pipeline.verdict import VerdictPlan, decide
from pipeline.verdict.decide import read_predictions

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "hunt.csv"
OVERSAMPLING, MIXUP = "real+classical+oversampling", "real+classical+mixup"
ADDED = ["real+classical", OVERSAMPLING, MIXUP, "real+classical+synthetic@0.5", "real+classical+synthetic@1"]
PRETRAINED = ["synthetic-pretrained", "augmented-pretrained"]
POOL = [
    "real+classical",
    "real+classical+pseudolabels",
    "pool-gan",
    "gan-features",
    "simclr-features",
    "random-features",
]
MINORITY = [
    "real+classical", "real+classical+classweights", OVERSAMPLING, "real+classical+logitadjustment",
    "real+classical+refit", "minority-synthetic",
]  # fmt: skip
POOL_ALONE = ["real+classical", "real+classical+pseudolabels", "pool-gan"]
CURATED = ["real+classical", OVERSAMPLING, MIXUP, "real+classical+synthetic@0.5", "real+classical+curated@0.5"]
SMALL_64 = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.num_images=40000"]
QUICK = ["classifier.steps=300", "classifier.seeds=3"]
ARCHIVE = ["gan.family=s3gan", "gan.num_images=60000", "data.surplus=unlabelled"]
TRANSLATED = [
    "real+classical",
    "real+classical+cellbalanced",
    "real+classical+groupdro",
    "cells-pretrained",
    "cells-consistency",
    "translated-consistency",
]
MUST_BEAT = [f"[translated-consistency, {control}]" for control in TRANSLATED[1:-1]]
THREE_DRAWS = ["data.split.draws=3", "classifier.seeds=2", f"verdict.comparisons=[{', '.join(MUST_BEAT)}]"]
EIGHT_DRAWS = ["data.split.draws=8", "classifier.steps=300", "classifier.seeds=2"]
WITHOUT_A_TRANSLATOR = [
    "real+classical+standardised",
    "real+classical+equalised",
    "real+classical+sitecentred",
    "real+classical+crosssitemixup",
    "real+classical+coral",
    "real+classical+dann",
]
TRANSLATIONS, MIXED = ["translated-consistency", "translated-pretrained"], ["translated-crosssitemixup"]
SCANNER_CONTROLS = {
    "": TRANSLATED[:-1],
    "more-": ["real+classical", *WITHOUT_A_TRANSLATOR],
    "mixed-": ["real+classical", "real+classical+cellbalanced", "real+classical+crosssitemixup"],
    "filters-": [
        "real+classical",
        "real+classical+bigaug",
        "real+classical+bigaug+crosssitemixup",
        "real+classical+amplitudemix",
    ],
}
MIXING = ("mixed-", "filters-")
"""Rows of which `translated-crosssitemixup` is the primary arm."""
PLANTED = {"chest": 7, "fresh": 8, "kernels": 12}
"""Pairs of planted scanners, and the seed of each."""


def arms(names: list[str]) -> str:
    return f"arms=[{', '.join(names)}]"


def compared(controls: list[str], translations: list[str]) -> list[str]:
    """Changes for these arms, the first of the translations against each control but the first."""
    pairs = ", ".join(f"[{translations[0]}, {one}]" for one in controls[1:])
    return [arms([*controls, *translations]), f"verdict.arm={translations[0]}", f"verdict.comparisons=[{pairs}]"]


def planted(pair: str, classes: tuple[str, str], rare: dict[str, str], side: int) -> list[str]:
    """Changes of `shortcut-translated` for a planted pair of scanners, 95 images in a common cell and 5 in a rare one.

    Args:
        classes: as the files number them; the second is positive.
        rare: each site -> its rare class.
    """
    files = [f"{site}: {{source: {{kind: npz, path: {ROOT / 'runs' / pair / site}.npz}}}}" for site in rare]
    cells = [
        f"{site}: {{{', '.join(f'{label}: {5 if label == own else 95}' for label in classes)}}}"
        for site, own in rare.items()
    ]
    return [
        f"data.sources={{{', '.join(files)}}}", f"data.classes=[{', '.join(classes)}]", f"data.positive=[{classes[1]}]",
        f"data.correlation={{{', '.join(cells)}}}", f"data.spatial_size={side}", "verdict.stratum=reversed",
    ]  # fmt: skip


ROWS: dict[str, tuple[str, list[str]]] = {
    "pneumonia-50-added": (
        "pneumoniamnist",
        [arms(ADDED + PRETRAINED), "gan.num_images=60000", "data.split.draws=3", *QUICK],
    ),
    "pneumonia-50-pool": (
        "pneumoniamnist",
        [
            arms(POOL), *ARCHIVE, "data.split.draws=3", "classifier.encoder_images=30000", *QUICK,
        ],
    ),
    **{
        f"pneumonia-{size}-pool-8": (
            "pneumoniamnist",
            [arms(POOL_ALONE), *ARCHIVE, f"data.train_per_class={size}", *EIGHT_DRAWS],
        )
        for size in (10, 50)
    },
    **{
        f"pneumonia-10-pool-again-{seed}": (
            "pneumoniamnist",
            [
                arms(POOL_ALONE), *ARCHIVE, "data.train_per_class=10", *EIGHT_DRAWS, "data.split.draws=4",
                f"seed={seed}",
            ],
        )
        for seed in (1, 2)
    },
    **{
        f"pneumonia-10-pool-{more}{seed}": (
            "pneumoniamnist",
            [
                arms(own), *ARCHIVE, "data.train_per_class=10", *EIGHT_DRAWS, "data.split.draws=4", f"seed={seed}",
                "verdict.arm=pool-gan", "anomaly.detectors=[]", "privacy.attacks=[]", *changes,
            ],
        )
        for more, own, changes in (
            ("fresh-", POOL_ALONE, ["verdict.comparisons=[[pool-gan, real+classical+pseudolabels]]"]),
            (
                "simclr-",
                ["real+classical", "simclr-features", "random-features", "pool-gan"],
                ["verdict.comparisons=[[pool-gan, simclr-features]]", "classifier.encoder_images=30000"],
            ),
        )
        for seed in range(11, 17)
    },
    "pneumonia-50-curated-8": ("pneumoniamnist", [arms(CURATED), "gan.num_images=60000", *EIGHT_DRAWS]),
    "nih-curated": (
        "nih-cxr",
        [arms([*CURATED, "pretrained+classical"]), "gan.family=vae-gan", *SMALL_64, *QUICK],
    ),
    "pneumonia-200-to-20": (
        "pneumoniamnist",
        [
            arms(MINORITY), "data.train_per_class={normal: 20, pneumonia: 200}", "gan.num_images=60000",
            "data.split.draws=3", *QUICK,
        ],
    ),
    "nih-added": ("nih-cxr", [arms(ADDED), "gan.family=vae-gan", *SMALL_64, *QUICK]),
    **{
        name: (
            "adrenal3d",
            [
                arms(MINORITY), "gan.family=vae-gan", f"gan.num_images={images}", "gan.generator_width=8",
                "gan.discriminator_width=8", *QUICK,
            ],
        )
        for name, images in (("adrenal-minority", 6000), ("adrenal-minority-longer", 24000))
    },
    "tcga-added": ("tcga-contrast", [arms(ADDED), "gan.family=vae-gan", *SMALL_64, *QUICK]),
    **{
        f"shortcut-translated-{size}{seed}": (
            "shortcut-translated",
            [arms(TRANSLATED), *THREE_DRAWS, f"seed={seed}", *([f"data.spatial_size={size[:-1]}"] if size else [])],
        )
        for size in ("", "28-")  # images stored at 28 x 28 have a frame at 32 x 32
        for seed in (1, 2, 3, 4)
    },
    **{
        f"shortcut-mixed-28-{seed}": (
            "shortcut-translated",
            [
                *compared([*SCANNER_CONTROLS["mixed-"], *SCANNER_CONTROLS["filters-"][1:]], MIXED), *THREE_DRAWS[:2],
                f"seed={seed}", "data.spatial_size=28",
            ],
        )
        for seed in (1, 2, 3, 4)
    },
    **{
        f"scanner-{pair}-{more}{seed}": (
            "shortcut-translated",
            [
                *compared(own, MIXED if more in MIXING else TRANSLATIONS), *THREE_DRAWS[:2], *changes, f"seed={seed}",
            ],
        )
        for more, own in SCANNER_CONTROLS.items()
        for pair, changes in {
            "chest": planted("chest", ("normal", "pneumonia"), {"edged": "normal", "soft": "pneumonia"}, 28),
            "fresh": [
                *planted("fresh", ("normal", "pneumonia"), {"edged": "normal", "soft": "pneumonia"}, 28),
                "verdict.stratum=balanced",
            ],
            "kernels": planted("kernels", ("cyst", "metastasis"), {"sharp": "metastasis", "soft": "cyst"}, 32),
        }.items()
        for seed in (1, 2, 3, 4)
    },
    "liver-added": ("demo", [arms(ADDED + PRETRAINED), "gan.num_images=60000", *QUICK]),
}  # fmt: skip
FIELDS = (
    "row", "kind", "arm", "reference", "endpoint", "difference", "ci_low", "ci_high", "p", "alone", "verdict",
    "n_patients", "n_folds", "fits", "minutes",
)  # fmt: skip
ENDPOINTS = ("auroc", "sensitivity", "specificity")
"""The first decides; the others are told of the same pairs of arms, with the threshold that was fixed on val."""


def run_row(name: str) -> None:
    """Run a row's configuration, and add its comparisons to the table."""
    config, changes = ROWS[name]
    pair = name.split("-")[1]
    if name.startswith("scanner-") and not (ROOT / "runs" / pair).exists():
        plant(pair, ROOT / "runs" / pair, PLANTED[pair])
    out = ROOT / "runs" / f"hunt-{name}"
    command = [str(Path(sys.executable).parent / "radaug"), "run", f"configs/{config}.yaml", "--out", str(out), "--yes"]
    started = time.monotonic()
    subprocess.run([*command, *(word for change in changes for word in ("--set", change))], check=True, cwd=ROOT)
    append(TABLE, comparisons(name, out, (time.monotonic() - started) / 60), FIELDS)


def comparisons(name: str, out: Path, minutes: float) -> list[dict[str, Any]]:
    """Every comparison of a finished run, in every endpoint."""
    utility = read_json(out / "verdict.json")["utility"]
    plan = plan_in(utility["evidence"]["plan"], utility["evidence"]["arm"])
    predictions = read_predictions(out / "predictions.csv")
    rows = []
    for endpoint in ENDPOINTS:
        found = (
            utility if endpoint == plan.endpoint else decide(predictions, replace(plan, endpoint=endpoint)).as_json()
        )
        for place, one in enumerate(found["evidence"]["comparisons"]):
            decides = place == 0 and endpoint == plan.endpoint
            rows.append({
                "row": name, "kind": "primary" if decides else "exploratory", "alone": one["decision"],
                "verdict": utility["decision"] if decides else "", "minutes": round(minutes, 1),
                **{key: one[key] for key in ("arm", "reference", "endpoint")},
                **{key: shown(one[key]) for key in ("difference", "ci_low", "ci_high", "p")},
                **{key: found["evidence"][key] for key in ("n_patients", "n_folds")},
                "fits": found["evidence"]["n_classifier_seeds"] * found["evidence"]["n_gan_seeds"],
            })  # fmt: skip
    return rows


def together(names: list[str], changes: dict[str, str]) -> str:
    """The primary arm's comparisons over the labelled draws of several rows at once, as one set of draws.

    Args:
        changes: of the plan, such as another `arm` or `stratum`: what they say was not planned.
    """
    outs = [ROOT / "runs" / f"hunt-{name}" for name in names]
    tables = [read_predictions(out / "predictions.csv") for out in outs]
    draws = [
        re.sub("-(more|mixed|filters|translated|simclr|fresh)-", "-", name) + "-" for name in names
    ]  # rows with further arms are of the same draws
    joined = pd.concat([table.assign(fold=draw + table["fold"]) for draw, table in zip(draws, tables, strict=True)])
    joined = joined.drop_duplicates(["arm", "fold", "seed", "gan_seed", "split", "image_id"])
    utility = read_json(outs[0] / "verdict.json")["utility"]
    found = decide(joined, replace(plan_in(utility["evidence"]["plan"], utility["evidence"]["arm"]), **changes))
    pairs = [
        f"{one['arm']} against {one['reference']}: {points(pd.DataFrame([one]))}, {one['decision']}"
        for one in found.evidence["comparisons"]
    ]
    return "\n".join([f"{' + '.join(names)}: {found.decision}", *found.reasons, *pairs])


def plan_in(values: dict[str, Any], arm: str) -> VerdictPlan:
    """The plan as the run's verdict wrote it down, with the arm that it compared."""
    return VerdictPlan(**values | {"positive": tuple(values["positive"]), "arm": arm, "comparisons": ()})


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def table() -> str:
    """Every comparison of every row: a line a pair of arms, differences in points with 95 % intervals."""
    lines = [
        "| row (test patients) | arm | against | AUROC | sensitivity | specificity | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = pd.read_csv(TABLE, keep_default_na=False, dtype=str)
    for (name, arm, reference), pair in rows.groupby(["row", "arm", "reference"], sort=False):
        cells = [points(pair[pair["endpoint"] == endpoint]) for endpoint in ENDPOINTS]
        verdict = "".join(pair["verdict"])
        told = f"**{verdict}**" if verdict else pair["alone"].iloc[0]
        place = f"{name} ({pair['n_patients'].iloc[0]})"
        lines.append(f"| {' | '.join((place, arm, reference, *cells, told))} |")
    return "\n".join(lines)


def points(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    span = f" ({100 * float(one['ci_low']):+.1f} to {100 * float(one['ci_high']):+.1f})" if one["ci_low"] else ""
    return f"{100 * float(one['difference']):+.1f}{span}"


def main() -> None:
    if sys.argv[1:] == ["table"]:
        print(table())
        return
    if sys.argv[1:2] == ["together"]:
        rows = [word for word in sys.argv[2:] if "=" not in word]
        print(together(rows, dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)))
        return
    for name in sys.argv[1:] or list(ROWS):
        run_row(name)


if __name__ == "__main__":
    main()
