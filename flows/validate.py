"""`radaug validate`: what the data are, what a run would do and cost, and what it could show. Trains nothing."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table

from flows.needs import Needs, count_images, in_gib, needs_of
from flows.plan import MANIFEST_STEPS, Step, check_configs, plan_experiment
from pipeline.config.experiment import Experiment
from pipeline.core.cache import execute
from pipeline.core.compute import resolve_hardware
from pipeline.core.errors import RefusedError
from pipeline.core.layout import AUDIT, MANIFEST, SPLITS_FILE
from pipeline.core.patients import known_patients, num_known, patient_units
from pipeline.core.processes import computed_beside
from pipeline.core.progress import in_words
from pipeline.core.threads import available_cores
from pipeline.data.cohort.audit_rows import WARNING
from pipeline.data.cohort.cells import cell_counts, cells_named, with_cells
from pipeline.verdict.power import expectation
from pipeline.verdict.release_outlook import release_outlook
from pipeline.verdict.strata import in_stratum, sides_judged, told_by_site

if TYPE_CHECKING:
    from pipeline.core.cost import CostEstimate


def validate(experiment: Experiment, cache: Path, console: Console, *, details: bool = False) -> None:
    """Read and split the data for real, and say whether the experiment can run, what it costs and what it can show.

    Args:
        details: print the audit, the split and the plan, too.

    Raises:
        UserError: the data or the configuration are wrong, or too few patients are tested for any comparison.
        LeakageError: a patient or an image would be on both sides of the split; the audit is printed first.
    """
    steps = plan_experiment(experiment)
    costing = partial(_costs, experiment)
    on_cpu = resolve_hardware(experiment.compute.device).device == "cpu"
    with computed_beside(costing) if on_cpu else nullcontext(costing) as costs:
        check_configs(steps)
        directories = _read_manifests(steps, cache, console)
        audit = read_text_table(directories["split"] / AUDIT)
        members = _members(directories["split"], experiment.data.site_column)
        _require_cells(experiment, members)
        shown = _what_it_shows(experiment, members)
        fits, estimates = costs()
    needs = needs_of(steps, experiment, count_images(directories["split"]))
    promised = (
        *_what_sites_tell(experiment, members),
        *_what_it_begins_with(experiment, directories["split"]),
        *_what_it_promises(experiment, members),
    )
    leaves = _what_may_leave(experiment, members)
    for sentence in (_what_it_takes(members, experiment, estimates, needs), shown, leaves, *promised):
        console.print(sentence, markup=False, highlight=False)
    _print_warnings(console, audit)
    if not details:
        console.print("Audit, split and plan: --all", markup=False)
        return
    _print_table(console, "Audit", _found(audit))
    _print_table(console, "Split: images (patients)", split_table(members, experiment.data.classes))
    _print_plan(console, experiment, steps, fits, estimates)


def _what_it_takes(members: pd.DataFrame, experiment: Experiment, costs: dict[str, CostEstimate], needs: Needs) -> str:
    images = members[members["split"] != "unused"].drop_duplicates("image_id")
    known = bool((known_patients(images) != "").all())
    of = f"{num_known(images)} patients" if known else "patients who are not all known"
    minutes, mib = sum(one.minutes for one in costs.values()), max(one.mib for one in costs.values())
    what = f"{len(images)} images of {of}, {len(experiment.data.classes)} classes"
    return (
        f"This can run: {what}, {in_words(minutes)}, {mib / 1024:.1f} GiB of memory, {in_gib(needs.disk_mib)} of disk."
    )


def _what_it_shows(experiment: Experiment, members: pd.DataFrame) -> str:
    rule = experiment.verdict
    tested = sides_judged(
        in_stratum(members, rule.stratum), experiment.data.positive, rule.unit, rule.endpoint, rule.stratum
    )
    unit = "patients" if (known_patients(members[members["split"] == "test"]) != "").all() else "images"
    return expectation(rule.endpoint, rule.alpha, rule.margin, *tested, unit=unit)


def _require_cells(experiment: Experiment, members: pd.DataFrame) -> None:
    """Check that a generator that is asked by site and class has a training image of every cell in every fold."""
    from pipeline.adversarial.cells import blind, cells_of_generator, require_every_cell

    cells = {} if blind(experiment.gan) else cells_of_generator(experiment)
    if not cells:
        return
    trained = members[(members["split"] == "train") & (members["label"] != "")]
    for fold, own in trained.groupby("fold"):
        require_every_cell(cells_named(own, "site"), cells, int(str(fold)))


def _what_sites_tell(experiment: Experiment, members: pd.DataFrame) -> list[str]:
    """How the training images lie in the cells of site and class, and how well the site alone tells the class."""
    site = experiment.data.site_column
    if not site:
        return []
    archive = members["site"][(members["fold"] == "0") & (members["split"] == "unlabelled")].value_counts()
    hidden = "".join(f" Without labels: {archive.get(name, 0)} of {name}." for name in experiment.data.unlabelled_sites)
    first = members[(members["split"] == "train") & (members["label"] != "")].drop_duplicates("image_id")
    rule = experiment.verdict
    told = told_by_site(first, "site", experiment.data.classes, experiment.seed, rule.bootstrap, rule.alpha)
    counts = cell_counts(first["site"], first["label"])
    cells = "; ".join(
        f"{name}: " + ", ".join(f"{n} {label}" for label, n in row.items()) for name, row in counts.iterrows()
    )
    if len(counts) < 2:
        return [f"Training images by {site}: {cells}.{hidden}"]
    span = "" if told.low is None or told.high is None else f" [{100 * told.low:.0f}, {100 * told.high:.0f}]"
    chance = 100 / len(experiment.data.classes)
    return [
        f"Training images by {site}: {cells}. {site} alone tells the class in {100 * told.value:.0f} %{span} of them "
        f"(guessing {chance:.0f} %).{hidden}"
    ]


def _what_it_begins_with(experiment: Experiment, split: Path) -> list[str]:
    """Where the GAN begins with another's weights; a generator that saw this run's patients ends `validate`."""
    if experiment.gan.start_from is None:
        return []
    from pipeline.adversarial.first_run import start_of
    from pipeline.adversarial.starting import require_strangers

    start = start_of(experiment.gan)
    assert start is not None
    for fold in range(experiment.data.split.num_folds):
        require_strangers(start, split, fold, private=experiment.gan.dp is not None)
    return [f"The GAN begins with weights of {experiment.gan.start_from}, whose images count as public."]


def _what_may_leave(experiment: Experiment, members: pd.DataFrame) -> str:
    from pipeline.adversarial.families import learns_from_pool

    own = members[members["fold"] == str(experiment.release.fold)]
    learned = ("train", "unlabelled") if learns_from_pool(experiment.gan) else ("train",)
    sides = (own[own["split"].isin(names)] for names in (learned, ("val", "test")))
    return release_outlook(experiment.privacy, *(patient_units(side).nunique() for side in sides))


def _what_it_promises(experiment: Experiment, members: pd.DataFrame) -> list[str]:
    """Of differential privacy, where `gan.dp` asks for it; a refusal ends `validate`."""
    if experiment.gan.dp is None:
        return []
    from pipeline.adversarial.private.outlook import outlook

    return outlook(experiment.gan, members[members["split"] == "train"])


def _print_warnings(console: Console, audit: pd.DataFrame) -> None:
    warnings = _found(audit[audit["severity"] == WARNING])
    for detail in warnings["detail"]:
        console.print(f"Warning: {detail}", style="yellow", markup=False, highlight=False)


def _found(audit: pd.DataFrame) -> pd.DataFrame:
    """The rows that found something."""
    return audit[audit["count"] != "0"]


def _members(split: Path, site: str = "") -> pd.DataFrame:
    """The members of each part of each fold, with label and patient; with a site also `site` and `cell`."""
    manifest = read_text_table(split / MANIFEST)
    facts = manifest[["image_id", "label", "patient_id"]]
    if site:
        facts = facts.assign(site=manifest[site])
    members = read_text_table(split / SPLITS_FILE).merge(facts, on="image_id", validate="many_to_one")
    return with_cells(members) if site else members


def read_text_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def split_table(members: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Images (patients) of each class, one row for every fold and split.

    Args:
        members: columns fold, split, label, patient_id; one row for every image in every fold.
    """
    rows = []
    for (fold, split), group in members.groupby(["fold", "split"]):
        counts = {name: count_images_and_patients(group[group["label"] == name]) for name in (*classes, "")}
        rows.append({"fold": fold, "split": split, **counts})
    table = pd.DataFrame(rows).rename(columns={"": "unlabelled"})
    return table.sort_values(by=["fold", "split"], key=lambda column: column.map(_split_order), ignore_index=True)


def count_images_and_patients(group: pd.DataFrame) -> str:
    """`12 (7)`: 12 images of 7 patients; `12 (?)` where an image has no patient id."""
    if group.empty:
        return "0"
    known = bool((known_patients(group) != "").all())
    return f"{len(group)} ({num_known(group) if known else '?'})"


def _split_order(value: str) -> str:
    order = ("train", "val", "test")
    return str(order.index(value)) if value in order else value.zfill(6)


def _read_manifests(steps: tuple[Step, ...], cache: Path, console: Console) -> dict[str, Path]:
    directories: dict[str, Path] = {}
    for step in steps:
        if step.kind not in MANIFEST_STEPS:
            continue
        try:
            directories[step.name] = execute(step.stage(directories), cache).directory
        except RefusedError:
            _print_table(console, "Audit", _found(read_text_table(directories["ingest"] / AUDIT)))
            raise
    return directories


def _costs(experiment: Experiment) -> tuple[int, dict[str, CostEstimate]]:
    """The number of classifier fits, and what they and the GANs cost. Its libraries are needed nowhere else here."""
    from pipeline.adversarial import gan_cost
    from pipeline.supervised import classifier_cost

    costs = {"GANs": gan_cost.estimate(experiment), "Classifiers": classifier_cost.estimate(experiment)}
    return classifier_cost.number_of_fits(experiment), costs


def _print_plan(
    console: Console, experiment: Experiment, steps: tuple[Step, ...], fits: int, costs: dict[str, CostEstimate]
) -> None:
    folds, gan_seeds = experiment.data.split.num_folds, experiment.gan.gan_seeds
    gans = folds * gan_seeds
    shadows = experiment.privacy.trained_shadows
    more = f" and {shadows} shadows of one for the audit" if shadows else ""
    console.print(f"Plan: {len(steps)} stages, {gans} GAN(s) ({experiment.gan.family}){more}, {fits} classifier fits")
    for name, cost in costs.items():
        console.print(f"{name}: {cost.flops:.2g} FLOPs, about {cost.minutes:.1f} min and {cost.mib:.0f} MiB of memory")
    console.print(f"Minutes are those of {available_cores()} core(s) that nobody else uses, or of one GPU.")


def _print_table(console: Console, title: str, rows: pd.DataFrame) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows.columns:
        table.add_column(str(column), overflow="fold")
    for row in rows.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
