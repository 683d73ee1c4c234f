"""The one flow: every step of an experiment in turn, each a Prefect task around a cached stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.faults import faults_kept_in
from flows.ledger import LOOKING, Look, begin_look, finish_look, read_ledger, settings_of
from flows.plan import AnyStep, plan_experiment
from flows.run_directory import cache_of, link_stage, open_run, publish_results
from flows.standing import Standing, ledger_table, looks_json, standings
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import Execution, execute
from pipeline.core.decisions import Verdicts
from pipeline.core.files import read_json
from pipeline.core.layout import FAULT_LOG, FIGURES, LEDGER, VERDICT
from pipeline.core.metrics import read_metrics
from pipeline.core.records import load_record
from pipeline.data.batches.dataset import write_table
from pipeline.report.page import write_report

logger = logging.getLogger(__name__)
_SHOWN_FIGURES = 4


@task(task_run_name="{step.name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(step: AnyStep, directories: Mapping[str, Path], cache: Path, fault_log: Path) -> Execution:
    """Execute one step, or find it in the cache.

    Raises:
        RadaugError: the stage's own error, or an unexpected one without its text (see `flows.faults`).
    """
    with faults_kept_in(fault_log, step.name):
        return execute(step.stage(directories), cache)


@task(task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def run_report(out: Path) -> Path:
    """Write the report of a run whose results are in place."""
    with faults_kept_in(out / FAULT_LOG, "report"):
        return write_report(out)


@flow(name="radaug", flow_run_name="{experiment[name]}", validate_parameters=False, persist_result=False)
def experiment_flow(experiment: dict[str, Any], out: str) -> Verdicts:
    """Run an experiment into the directory `out`; finished stages come from the cache.

    Args:
        experiment: the resolved configuration, as plain values.
        out: the run directory; links, tables and report are written there, stages into the cache.

    Returns:
        The run's verdict.json.

    Raises:
        RadaugError: a stage refused or could not go on; the first one ends the flow.
    """
    settings = validate_experiment(experiment, "the flow's parameters")
    place = Path(out)
    cache = cache_of(place)
    with open_run(place, settings), faults_kept_in(place / FAULT_LOG, "run"):
        read_ledger(cache)  # a ledger that cannot be read is told before anything is trained
        directories: dict[str, Path] = {}
        looking = False
        for step in plan_experiment(settings):
            execution = run_stage(step, directories, cache, place / FAULT_LOG)
            directories[step.name] = execution.directory
            link_stage(place, execution.record, execution.directory)
            logger.info(describe_execution(step.name, execution))
            if step.kind in LOOKING and not looking:
                begin_look(cache, directories["split"], settings, "run", settings_of(settings))
                looking = True
        looked = _looked(cache, settings, directories)
        write_table(place / LEDGER, ledger_table(looked))
        publish_results(place, directories, looks_json(looked))
        report = run_report(place)
        publish_artifacts(place, report)
        verdicts: Verdicts = read_json(place / VERDICT)
        return verdicts


def _looked(cache: Path, settings: Experiment, directories: Mapping[str, Path]) -> list[Standing]:
    """Put the finished run into the ledger, and say where its look stands."""
    verdict, key = directories["verdict"], settings_of(settings)
    record, decided = load_record(verdict), read_json(verdict / VERDICT)

    def look(when: str, sets: dict[str, str]) -> Look:
        utility, release = (str(decided[part]["decision"]) for part in ("utility", "release"))
        return Look(when, settings.name, "run", key, record.fingerprint, record.digest, utility, release, sets)

    return standings(*finish_look(cache, directories["split"], settings, look))


def describe_execution(name: str, execution: Execution) -> str:
    """A finished stage in one line: its name, `cached` or its seconds, and its first figures."""
    took = "cached" if execution.cached else f"{execution.record.wall_s:.1f} s"
    numbers = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in execution.record.figures.items()
        if isinstance(value, (int, float, str))
    ]
    return "  ".join([f"{name:<28}", f"{took:>9}", ", ".join(numbers[:_SHOWN_FIGURES])]).rstrip()


def publish_artifacts(out: Path, report: Path) -> None:
    """Show the run in Prefect's pages: verdicts and mean metrics, and links to the report and its pictures.

    Tables and sentences hold no patient; the links lead to files that stay on this machine.
    """
    verdict = read_json(out / VERDICT)
    parts = {name: verdict[name] for name in ("utility", "release")}
    lines = [f"## {name}: {part['decision']}\n\n" + "\n".join(part["reasons"]) for name, part in parts.items()]
    create_markdown_artifact(
        "\n\n".join([*verdict["looks"]["sentences"], *lines]), key="verdict", description="The run's verdicts."
    )
    create_table_artifact(mean_metrics(out), key="metrics", description="Means over fits.")
    pictures = {f"figure-{path.stem}": path for path in sorted((out / FIGURES).glob("*.png"))}
    for key, path in {"report": report, **pictures}.items():
        create_link_artifact(path.resolve().as_uri(), key=key.lower().replace("_", "-"), link_text=path.name)


def mean_metrics(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv that are a mean over fits, over all patients, with the columns that a reader needs."""
    columns = ("stage", "arm", "split", "label", "metric", "value", "ci_low", "ci_high", "n_patients")
    means = [row for row in read_metrics(run) if not (row.fold or row.seed or row.subgroup)]
    return [{name: getattr(row, name) for name in columns} for row in means]
