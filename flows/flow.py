"""The run as a Prefect flow: every job of its graph a task, its verdicts and tables in Prefect's pages."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from flows.cancelled import ended_when_cancelled
from flows.children import Work
from flows.curve import curve_sentences, run_curve
from flows.engines import Engine, carry_out, no_child_left_behind
from flows.faults import faults_kept_in
from flows.gone import despite_its_server
from flows.graph import Start
from flows.lease import holder_of, note_flow_run
from flows.page_log import PageLog
from flows.progress import Terminal, heard_by, progress_shown
from flows.running import run_experiment
from flows.server import has_pages
from flows.shares import Machine
from flows.spread import sending
from pipeline.config.experiment import ComputeConfig, Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.cache import Execution
from pipeline.core.decisions import Verdicts
from pipeline.core.errors import RadaugError
from pipeline.core.files import digest_text, read_json
from pipeline.core.layout import CURVE, FAULT_LOG, FIGURES, REPORT, VERDICT
from pipeline.core.metrics import read_metrics
from pipeline.report.picture import data_uri

logger = logging.getLogger(__name__)
SHOWN = ("difference", "arms", "roc", "training")
"""Pictures of the report that are curves alone."""


@task(task_run_name="{work.name}", cache_policy=NO_CACHE, persist_result=False)
def run_job(work: Work, found: Execution | None) -> Execution | None:
    """Carry out one job of the graph in a child process, or take what was found in the cache.

    Raises:
        RadaugError: the stage's own error, or an unexpected one without its text (see `flows.faults`).
    """
    return carry_out(work, found)


@task(name="fetch", cache_policy=NO_CACHE, persist_result=False)
def bring_new_studies(settings: Experiment, out: Path) -> None:
    """Fetch new studies from the PACS that `settings` name.

    Raises:
        RadaugError: as of `fetch_configured`; without its causes, which Prefect shows and which may name a study.
    """
    from flows.pacs.fetch import fetch_configured

    with faults_kept_in(out / FAULT_LOG, "fetch"):
        logger.info("fetch: %s", fetch_configured(settings).sentence())


def prefect_engine(out: Path, compute: ComputeConfig) -> Engine:
    """The engine of a run into `out`: jobs are tasks of the running flow, here or where `compute.engine` has it.

    The flow run of a process that was killed while it ran into `out` is still `Running` in Prefect, which does not see
    that its process is gone; once this one holds `out` it is closed as `Crashed`. One that has let go of `out` and is
    still there tells its end itself.
    """
    before = holder_of(out)

    @contextmanager
    def engine(machine: Machine) -> Iterator[Start]:
        flow_run = _flow_run_id()
        if before and before.flow_run not in ("", flow_run) and not (before.here and before.alive):
            close_forsaken(before.flow_run)
        note_flow_run(out, flow_run)
        watched = has_pages() and not _is_scheduled()
        with ended_when_cancelled(flow_run) if watched else nullcontext(), _tasks(compute, machine) as start:
            yield start

    return engine


def close_forsaken(flow_run: str) -> None:
    """Mark a flow run whose process is gone as crashed, and its tasks too; nothing where this server knows no such."""
    gone: State[Any] = Crashed(message="Its process was killed; the next run into the same directory found it so.")
    own = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run)]))
    with suppress(ObjectNotFound), get_client(sync_client=True) as client:
        if not client.read_flow_run(UUID(flow_run)).state.is_final():  # type: ignore[union-attr]
            for one in client.read_task_runs(flow_run_filter=own):
                if one.state is None or not one.state.is_final():
                    client.set_task_run_state(one.id, gone, force=True)
            client.set_flow_run_state(UUID(flow_run), gone, force=True)


@contextmanager
def _tasks(compute: ComputeConfig, machine: Machine) -> Iterator[Start]:
    """Each job a task; on this machine after those of the steps that it needs, as Prefect's pages draw it."""
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

    if compute.engine == "local":
        with no_child_left_behind():
            yield start
        return
    with sending(run_job, compute, machine) as send:
        yield lambda work, found: start(work, found) if found else send(work)


def _hand_over(ended: PrefectFuture[Execution | None], outcome: Future[Execution | None]) -> None:
    try:
        outcome.set_result(ended.result())
    except BaseException as error:  # the graph waits for every outcome
        outcome.set_exception(error)


@flow(name="radaug", flow_run_name="{experiment[name]}", validate_parameters=False, persist_result=False)
def experiment_flow(experiment: dict[str, Any], out: str, yes: bool = False, fetches: bool = False) -> Verdicts:
    """Run an experiment into the directory `out`; see `run_experiment`. A run of a deployment waits for another one
    that is at work there.

    Args:
        experiment: the resolved configuration, as plain values.
        yes: start, though disk or memory will hardly be enough.
        fetches: bring what the configuration's `fetch:` asks for first, as a schedule does.

    Returns:
        The run's verdict.json.

    Raises:
        RadaugError: a stage refused or could not go on.
    """
    with _logged():
        settings = validate_experiment(experiment, "the flow's parameters")
        if fetches:
            bring_new_studies(settings, Path(out))
        engine, publish = prefect_engine(Path(out), settings.compute), partial(publish_artifacts, settings.name)
        verdicts = run_experiment(settings, Path(out), engine, yes=yes, waits=_is_scheduled(), publish=publish)
        if _is_scheduled():  # a command says it itself
            decided = [verdicts["utility"]["decision"], verdicts["release"]["decision"]]
            logger.info("%s: utility %s, release %s", settings.name, *decided)
        return verdicts


@flow(name="radaug-curve", flow_run_name="{experiment[name]}", validate_parameters=False, persist_result=False)
def curve_flow(
    experiment: dict[str, Any], out: str, sizes: Sequence[int], draws: int, arm: str, yes: bool = False
) -> list[str]:
    """Draw the low-data curve of an experiment into the directory `out`; see `run_curve`.

    Raises:
        RadaugError: a stage refused or could not go on.
    """
    with _logged():
        settings = validate_experiment(experiment, "the flow's parameters")
        engine = prefect_engine(Path(out), settings.compute)
        return run_curve(settings, Path(out), engine, sizes, draws, arm, yes=yes)


def run_by_prefect(experiment: Experiment, place: Path, *, yes: bool) -> Verdicts:
    """The flow of a run into `place`, which its server may leave.

    Raises:
        RadaugError: as of `despite_its_server`.
    """
    values = experiment.model_dump(mode="json")
    return despite_its_server(lambda: experiment_flow(values, str(place), yes), place / VERDICT, read_json)


def curve_by_prefect(
    experiment: Experiment, place: Path, sizes: Sequence[int], draws: int, arm: str, *, yes: bool
) -> list[str]:
    """The flow of a curve into `place`, which its server may leave.

    Raises:
        RadaugError: as of `despite_its_server`.
    """
    values = experiment.model_dump(mode="json")
    drawn = partial(curve_flow, values, str(place), sizes, draws, arm, yes)
    return despite_its_server(drawn, place / CURVE, lambda page: curve_sentences(page.parent))


def publish_artifacts(name: str, out: Path) -> None:
    """Show the run in Prefect's pages: verdicts with curves that a browser opens anywhere, and mean metrics.

    A server may stand elsewhere, so nothing goes there that shows or names a patient: no image, and of the report only
    where it lies. Keys begin with the experiment's name, so that a key's history is that of one experiment.
    """
    verdict = read_json(out / VERDICT)
    parts = {part: verdict[part] for part in ("utility", "release")}
    lines = [f"## {part}: {found['decision']}\n\n" + "\n".join(found["reasons"]) for part, found in parts.items()]
    place = f"The report lies on {gethostname()}: `{(out / REPORT).resolve()}`"
    pictures = [path for stem in SHOWN if (path := out / FIGURES / f"{stem}.png").is_file()]
    curves = [f"![{path.stem}]({data_uri(path.read_bytes())})" for path in pictures]
    create_markdown_artifact(
        "\n\n".join([*verdict["looks"]["sentences"], *lines, place, *curves]),
        key=artifact_key(name, "verdict"),
        description=f"{name}: the run's verdicts.",
    )
    create_table_artifact(mean_metrics(out), key=artifact_key(name, "metrics"), description=f"{name}: means over fits.")


def artifact_key(name: str, what: str) -> str:
    """`NAME-WHAT` in what Prefect takes: lower-case letters, digits and dashes."""
    key = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{key if key == name else f'{key}-{digest_text(name)[:6]}'}-{what}".removeprefix("-")


def _flow_run_id() -> str:
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None
    return str(context.flow_run.id)


def _is_scheduled() -> bool:
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


@contextmanager
def _logged() -> Iterator[None]:
    """The run's log in its page, whose address is said, where the server has pages that stay when the run ends; a
    deployment's run has no command around it, and shows its lines itself."""
    with ExitStack() as stack:
        if _is_scheduled():
            stack.enter_context(progress_shown(Terminal()))
        if has_pages():
            stack.enter_context(heard_by(PageLog(_flow_run_id())))
            logger.info("Prefect's page of this run: %s", url_for("flow-run", _flow_run_id()))
        try:
            yield
        except RadaugError as error:
            if _is_scheduled():
                logger.error("radaug: %s", error)
            raise


def mean_metrics(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv that are a mean over fits, over all patients, with the columns that a reader needs."""
    columns = ("stage", "arm", "split", "label", "metric", "value", "ci_low", "ci_high", "n_patients")
    means = [row for row in read_metrics(run) if not (row.fold or row.seed or row.subgroup)]
    return [{name: getattr(row, name) for name in columns} for row in means]
