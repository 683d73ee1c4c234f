"""Is a classifier from scratch needed? Linear models on fixed representations, by the number of labelled chest X-rays.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/representation.py [--draws 3] [--sizes 10 50 200]

PneumoniaMNIST at 32 x 32, the rest of its training images without their labels. A row of
benchmarks/results/representation.csv is an arm at one number of labels in one draw, added as soon as it is made; the
comparison over the draws so far is printed after each, as docs/representation.md has it. Stages are cached.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rows import append

from flows.plan import plan_experiment
from pipeline.config.arms import REFERENCE_ARM
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.layout import PREDICTIONS
from pipeline.core.records import load_record
from pipeline.data.batches.dataset import read_table
from pipeline.measures.classification import weighted_auroc
from pipeline.report.representation_tables import representation_plot
from pipeline.verdict.representations import WORDS, representation_table, size_representations
from pipeline.verdict.stage import plan_of_run

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "representation.csv"
FIGURE = ROOT / "docs" / "figures" / "representation.png"
COLUMNS = ["size", "draw", "arm", "auroc", "C", "val_auroc", "numbers", "labelled", "unlabelled", "encoder_images"]
KINDS = ("ingest", "split", "prepare", "fit-gan", "synthesise", "downstream")
SETTINGS = [
    "data.surplus=unlabelled", "gan.family=s3gan", "gan.num_images=10000", "gan.discriminator_width=24",
    "gan.generator_width=24", "gan.watch.checks=0", "gan.snapshots=1", "gan.checkpoints=1",
    "synthesis.samples_per_class=8", "classifier.steps=400", "classifier.seeds=1", f"arms=[{REFERENCE_ARM}]",
    "representation={of: [vae, f-anogan, discriminator, effnet]}", "compute.device=cpu", "compute.precision=float32",
]  # fmt: skip


def experiment_of(size: int, draws: int) -> Experiment:
    changes = [*SETTINGS, f"data.train_per_class={size}", f"data.split.draws={draws}"]
    return load_experiment(ROOT / "configs" / "pneumoniamnist.yaml", changes)


def measured(experiment: Experiment, draw: int, cache: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predictions of one draw's classifiers, and the facts of their fits by arm."""
    made: dict[str, Path] = {}
    for step in plan_experiment(experiment):
        if step.kind in KINDS and step.fold in (None, draw):
            made[step.name] = execute(step.stage(made), cache).directory
    judged = [directory for name, directory in made.items() if name.startswith("downstream")]
    facts = [load_record(directory).figures["fits"] for directory in judged]
    table = pd.concat([read_table(directory / PREDICTIONS) for directory in judged], ignore_index=True)
    return table[table["split"] != "synthetic"], {
        key.split(" seed ")[0]: fit for one in facts for key, fit in one.items()
    }


def rows_of(table: pd.DataFrame, facts: dict[str, Any], size: int, draw: int) -> list[dict[str, Any]]:
    found = []
    for arm, own in table[table["split"] == "test"].groupby("arm", sort=False):
        ill, score = (own["label"] == "pneumonia").to_numpy(), own["score_pneumonia"].astype(float).to_numpy()
        auroc = weighted_auroc(score, ill, torch.ones(1, len(own)).numpy())[0]
        known = {name: value for name, value in facts.get(str(arm), {}).items() if name in COLUMNS}
        found.append({"size": size, "draw": draw, "arm": arm, "auroc": f"{auroc:.4f}", **known})
    return found


def markdown(table: pd.DataFrame) -> str:
    """An arm a row, a size a column: mean AUROC, and the difference in points with its interval."""
    sizes = sorted(set(table["size"]))
    lines = [f"| arm | {' | '.join(f'{size} a class' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    means = table.drop_duplicates("size").set_index("size")["reference_mean"]
    lines.append(f"| `{REFERENCE_ARM}` | {' | '.join(f'{means[size]:.3f}' for size in sizes)} |")
    for arm, own in table.groupby("arm", sort=False):
        cells = []
        for row in own.sort_values("size").to_dict("records"):
            span = "" if pd.isna(row["ci_low"]) else f" ({100 * row['ci_low']:+.1f} to {100 * row['ci_high']:+.1f})"
            word = WORDS[row["decision"]].rpartition(" ")[0]
            cells.append(f"{row['arm_mean']:.3f}, {100 * row['difference']:+.1f}{span}, {word}")
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / ".cache")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[int, list[pd.DataFrame]] = {size: [] for size in arguments.sizes}
    for draw in range(arguments.draws):
        for size in arguments.sizes:
            experiment = experiment_of(size, arguments.draws)
            table, facts = measured(experiment, draw, arguments.cache)
            append(TABLE, rows_of(table, facts, size, draw), COLUMNS)
            found[size].append(table)
        plan = plan_of_run(experiment)
        rows = [row for size, own in found.items() for row in size_representations(pd.concat(own), plan, size)]
        print(f"{draw + 1} draw(s), margin {plan.margin}:", flush=True)
        compared = representation_table(rows, plan.alpha)
        print(markdown(compared), flush=True)
        FIGURE.write_bytes(representation_plot(compared))


if __name__ == "__main__":
    main()
