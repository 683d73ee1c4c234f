"""The run as a Prefect flow: every job of its graph a task, its verdicts and tables in Prefect's pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows.children import Work
from flows.curve import run_curve
from flows.engines import carry_out, no_child_left_behind
from flows.graph import Start
from flows.running import run_experiment
from flows.shares import Machine
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import Execution
from pipeline.core.decisions import Verdicts
from pipeline.core.files import read_json
from pipeline.core.layout import FIGURES, REPORT, VERDICT
from pipeline.core.metrics import read_metrics


@task(task_run_name="{work.name}", cache_policy=NO_CACHE, persist_result=False)
def run_job(work: Work, found: Execution | None) -> Execution | None:
    """Carry out one job of the graph in a child process, or take what was found in the cache.

    Raises:
        RadaugError: the stage's own error, or an unexpected one without its text (see `flows.faults`).
    """
    return carry_out(work, found)


@contextmanager
def prefect_engine(machine: Machine) -> Iterator[Start]:
    """Jobs are tasks of the flow that is running, each after those of the steps that it needs."""
    tasks: dict[str, PrefectFuture[Execution | None]] = {}

    def start(work: Work, found: Execution | None) -> Future[Execution | None]:
        needed = [tasks[name] for name in dict.fromkeys(work.step.needs.values()) if name in tasks]
        submitted: PrefectFuture[Execution | None]
        submitted = run_job.submit(work, found, wait_for=needed)  # type: ignore[call-overload]
        if not work.part:
            tasks[work.step.name] = submitted
        outcome: Future[Execution | None] = Future()
        submitted.add_done_callback(lambda ended: _hand_over(ended, outcome))
        return outcome

    with no_child_left_behind():
        yield start


def _hand_over(ended: PrefectFuture[Execution | None], outcome: Future[Execution | None]) -> None:
    try:
        outcome.set_result(ended.result())
    except Exception as error:
        outcome.set_exception(error)


@flow(name="radaug", flow_run_name="{experiment[name]}", validate_parameters=False, persist_result=False)
def experiment_flow(experiment: dict[str, Any], out: str) -> Verdicts:
    """Run an experiment into the directory `out`; see `run_experiment`.

    Args:
        experiment: the resolved configuration, as plain values.

    Returns:
        The run's verdict.json.

    Raises:
        RadaugError: a stage refused or could not go on.
    """
    verdicts = run_experiment(validate_experiment(experiment, "the flow's parameters"), Path(out), prefect_engine)
    publish_artifacts(Path(out))
    return verdicts


@flow(name="radaug-curve", flow_run_name="{experiment[name]}", validate_parameters=False, persist_result=False)
def curve_flow(experiment: dict[str, Any], out: str, sizes: Sequence[int], draws: int, arm: str) -> list[str]:
    """Draw the low-data curve of an experiment into the directory `out`; see `run_curve`.

    Raises:
        RadaugError: a stage refused or could not go on.
    """
    settings = validate_experiment(experiment, "the flow's parameters")
    return run_curve(settings, Path(out), prefect_engine, sizes, draws, arm)


def publish_artifacts(out: Path) -> None:
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
    for key, path in {"report": out / REPORT, **pictures}.items():
        create_link_artifact(path.resolve().as_uri(), key=key.lower().replace("_", "-"), link_text=path.name)


def mean_metrics(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv that are a mean over fits, over all patients, with the columns that a reader needs."""
    columns = ("stage", "arm", "split", "label", "metric", "value", "ci_low", "ci_high", "n_patients")
    means = [row for row in read_metrics(run) if not (row.fold or row.seed or row.subgroup)]
    return [{name: getattr(row, name) for name in columns} for row in means]
