"""The low-data curve: small experiments on more and more training images, tested on the same patients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flows.engines import Engine
from flows.enrolment import require_register
from flows.faults import faults_kept_in
from flows.ledger import Look, finish_look, read_ledger, settings_of
from flows.plan import Step, plan_experiment
from flows.run_directory import cache_of, open_run
from flows.running import StepWatcher, run_steps
from flows.standing import Standing, ledger_table, looks_json, standings
from pipeline.config.arms import REFERENCE_ARM, arm_facts, is_candidate, nearest_arm
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import execute
from pipeline.core.cost import CostEstimate
from pipeline.core.errors import ConfigError, DataError, UserError
from pipeline.core.files import digest_text, read_json, write_json
from pipeline.core.layout import (
    CURVE_LEFT_OUT,
    CURVE_POINTS,
    CURVE_REPRESENTATIONS,
    CURVE_TABLE,
    FAULT_LOG,
    LEDGER,
    LOOKS,
    MANIFEST,
    PREDICTIONS,
    SPLITS_FILE,
)
from pipeline.core.metrics import read_metrics
from pipeline.core.patients import known_patients, patient_units
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.report.comparison_lines import curve_lines
from pipeline.report.curve_page import answer, read_curve, read_representations, write_curve_page
from pipeline.report.representation_tables import representation_answer
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.low_data_curve import POINT_COLUMNS, curve_plan, curve_table, size_points, size_row
from pipeline.verdict.representations import representation_table, size_representations
from pipeline.verdict.stage import plan_of

logger = logging.getLogger(__name__)
_KINDS = ("ingest", "split", "prepare", "fit-gan", "synthesise", "quality", "downstream")
_LEAST_SIZES = 2


def run_curve(
    settings: Experiment,
    place: Path,
    engine: Engine,
    sizes: Sequence[int],
    draws: int,
    arm: str,
    *,
    yes: bool = False,
) -> list[str]:
    """Train on `sizes` real images a class with and without synthetic ones, and write the curve into `place`.

    Every size has up to `draws` training sets that share no patient, each with a GAN of its own that saw nothing else.
    Sizes that the data cannot give are left out, with their reasons. What `representation:` asks for is compared at
    every size too.

    Args:
        yes: start, though disk or memory will hardly be enough.

    Returns:
        The curve size by size and the answer in sentences, as lines; curve.html in `place` is the page.

    Raises:
        ConfigError: `arm` is no arm that may help.
        UserError: fewer than two different sizes, or no draw.
        DataError: the data can give fewer than two of the sizes.
        RadaugError: a stage refused or could not go on.
    """
    _check(sizes, draws, arm)
    with open_run(place, settings), faults_kept_in(place / FAULT_LOG, "curve"):
        plan = curve_plan(plan_of(settings.verdict, settings.data.positive, settings.seed), arm)
        rows: list[dict[str, Any]] = []
        points: list[dict[str, Any]] = []
        represented: list[dict[str, Any]] = []
        left_out: dict[int, str] = {}
        key = settings_of(settings, sorted(sizes), draws, arm)
        require_register(settings, cache_of(place))
        read_ledger(cache_of(place))  # a ledger that cannot be read is told before anything is trained
        for size in sorted(sizes):
            try:
                at_size, split = _measure(settings, plan, size, draws, place, engine, key, yes)
            except _NotEnough as error:
                left_out[size] = str(error)
                logger.warning("%d images a class: left out. %s", size, error)
                continue
            rows.append(at_size.row)
            points += at_size.points
            represented += at_size.representations
        if len(rows) < _LEAST_SIZES:
            raise DataError(f"A curve needs two sizes at least. {' '.join(left_out.values())}")
        write_table(place / CURVE_POINTS, pd.DataFrame(points, columns=list(POINT_COLUMNS)))
        lost = pd.DataFrame(left_out.items(), columns=["size", "reason"])
        write_table(place / CURVE_LEFT_OUT, lost)
        table = curve_table(rows, plan.alpha)
        write_table(place / CURVE_TABLE, table)
        _write_representations(place, represented, plan.alpha)
        looked = _looked(cache_of(place), settings, split, key, table)
        write_table(place / LEDGER, ledger_table(looked))
        write_json(place / LOOKS, looks_json(looked))
        write_curve_page(place)
        return curve_sentences(place)


def curve_sentences(place: Path) -> list[str]:
    """What a finished curve in `place` says: looks, sizes and the answer, as lines."""
    curve = read_curve(place)
    told = representation_answer(read_representations(place)) if (place / CURVE_REPRESENTATIONS).is_file() else []
    return [*read_json(place / LOOKS)["sentences"], *curve_lines(curve), *answer(curve), *told]


def _write_representations(place: Path, rows: Sequence[dict[str, Any]], alpha: float) -> None:
    """The table, or none where no arm is on a fixed representation: not that of an earlier curve either."""
    path = place / CURVE_REPRESENTATIONS
    if rows:
        write_table(path, representation_table(rows, alpha))
    else:
        path.unlink(missing_ok=True)


def _looked(cache: Path, settings: Experiment, split: Path, key: str, table: pd.DataFrame) -> list[Standing]:
    """Put the finished curve into the ledger as one look, and say where it stands."""
    sizes = [
        f"{decision} with {', '.join(own['size'].astype(str))}"
        for decision, own in table.groupby("decision", sort=False)
    ]
    result = digest_text(table.to_csv(index=False))

    def look(when: str, sets: dict[str, str]) -> Look:
        decided = ", ".join(sizes)
        return Look(when, settings.name, "curve", key, result[:16], result, decided, "", sets)

    return standings(*finish_look(cache, split, settings, look))


def curve_cost(settings: Experiment, sizes: Sequence[int], draws: int, arm: str) -> CostEstimate:
    """What the curve takes if every size has all draws and nothing of it is in the cache; trains nothing.

    Raises:
        UserError, ConfigError: as of `run_curve`.
    """
    from pipeline.adversarial import gan_cost
    from pipeline.supervised import classifier_cost

    _check(sizes, draws, arm)
    at_size = _at_size(settings, max(sizes), draws, arm)
    parts = [gan_cost.estimate(at_size), classifier_cost.estimate(at_size)]
    flops, minutes = (len(sizes) * sum(getattr(one, name) for one in parts) for name in ("flops", "minutes"))
    return CostEstimate(flops, minutes, max(one.mib for one in parts))


class _NotEnough(DataError):
    """The data cannot give a training set of this size."""


def _check(sizes: Sequence[int], draws: int, arm: str) -> None:
    if draws < 1:
        raise UserError(f"--draws must be 1 or more; found {draws}.")
    if len(set(sizes)) < max(_LEAST_SIZES, len(sizes)) or min(sizes) < 1:
        raise UserError(f"--sizes needs two or more different numbers, such as 10 25 50; found {list(sizes)}.")
    if not is_candidate(arm):
        near = "" if arm_facts(arm) else nearest_arm(arm)
        raise ConfigError(f"--arm {arm}: is no arm that may help{near}. Name one that learns from a GAN.")


@dataclass(frozen=True)
class _Measured:
    """Of one size: its row of the curve, the points of both arms, and the rows of the fixed representations."""

    row: dict[str, Any]
    points: list[dict[str, Any]]
    representations: list[dict[str, Any]]


def _measure(
    settings: Experiment,
    plan: VerdictPlan,
    size: int,
    draws: int,
    place: Path,
    engine: Engine,
    key: str,
    yes: bool,
) -> tuple[_Measured, Path]:
    """Make every stage of one size, and compare its arms on the test patients; also gives the size's split."""
    cache = cache_of(place)
    at_size, steps = _steps(settings, plan.arm, size, draws, cache)
    watcher = StepWatcher(settings, cache, "curve", key, prefix=f"{size} a class: ", yes=yes)
    directories = run_steps(at_size, steps, place, engine, watcher)
    made = {kind: [directories[step.name] for step in steps if step.kind == kind] for kind in ("quality", "downstream")}
    metrics = [row for directory in made["quality"] for row in read_metrics(directory)]
    predictions = pd.concat([read_table(at / PREDICTIONS) for at in made["downstream"]], ignore_index=True)
    row = size_row(predictions, plan, size, metrics) | _patients(directories["split"])
    points, represented = size_points(predictions, plan, size), size_representations(predictions, plan, size)
    return _Measured(row, points, represented), directories["split"]


def _steps(settings: Experiment, arm: str, size: int, draws: int, cache: Path) -> tuple[Experiment, list[Step]]:
    """The size's experiment, with as many draws as the data can give, and its steps."""
    reason = ""
    for number in range(draws, 0, -1):
        at_size = _at_size(settings, size, number, arm)
        steps = plan_experiment(at_size)
        ingest, split, *_ = steps
        source = {ingest.name: execute(ingest.stage({}), cache).directory}
        try:
            execute(split.stage(source), cache)
        except DataError as error:
            reason = str(error)
            continue
        return at_size, [step for step in steps if step.kind in _KINDS]
    raise _NotEnough(reason)


def _at_size(settings: Experiment, size: int, draws: int, arm: str) -> Experiment:
    """The experiment with `size` training images a class in `draws` draws, and no arm but `arm` and its controls."""
    facts = arm_facts(arm)
    controls = (*facts.controls, *(one for one in facts.also if one in settings.arms)) if facts else ()
    values = settings.model_dump(mode="json")
    values["data"]["train_per_class"] = size
    values["data"]["split"]["draws"] = draws
    values["arms"] = list(dict.fromkeys((REFERENCE_ARM, *controls, arm)))
    values["verdict"] |= {"arm": arm, "comparisons": []}
    return validate_experiment(values, f"{size} training images a class")


def _patients(split: Path) -> dict[str, float]:
    """Mean number of training patients of a draw; images without an id count as patients, and are counted too."""
    train = read_table(split / SPLITS_FILE).query("split == 'train'")
    known = train.merge(read_table(split / MANIFEST)[["image_id", "patient_id"]], on="image_id")
    drawn = known.assign(unit=patient_units(known)).groupby("fold")["unit"].nunique()
    return {"train_patients": float(drawn.mean()), "without_patient": int((known_patients(known) == "").sum())}
