"""A schedule: the flow as a Prefect deployment, served from this process or made by the workers of a pool."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from tzlocal import get_localzone_name

from flows.flow import experiment_flow
from flows.server import server_answers
from flows.serving import serve_deployment
from pipeline.config.experiment import Experiment
from pipeline.config.loading import data_root
from pipeline.core.errors import ConfigError, UserError

DEFAULT_SERVER = "http://127.0.0.1:4200/api"


def read_cron(cron: str) -> Schedule:
    """When `cron`, in local time, fires.

    Raises:
        ConfigError: it is not a cron expression.
    """
    try:
        return Cron(cron, timezone=get_localzone_name())
    except ValueError as error:
        raise ConfigError(f'--cron "{cron}": is not a cron expression; "0 2 * * *" is every night at two.') from error


def build_deployment(experiment: Experiment, out: Path, when: Schedule, *, yes: bool = False) -> RunnerDeployment:
    """The deployment named by the experiment, which fetches what it asks for and runs it into `out`.

    Runs are made one at a time by the lock of `out`, and not by Prefect's `concurrency_limit`: that one cancels a run
    in the middle when the server was started again meanwhile, and where machine and server go down together with a run
    at work, its place stays taken, so that no night has a run any more (Prefect 3.8 keeps leases in memory).
    """
    deployment = experiment_flow.to_deployment(
        name=experiment.name,
        schedule=when,
        parameters={
            "experiment": experiment.model_dump(mode="json"),
            "out": str(out.resolve()),
            "yes": yes,
            "fetches": bool(experiment.fetch.pacs),
        },
        tags=["radaug", experiment.gan.family],
        description="GAN augmentation of a CT or X-ray data set, judged with evidence. Not for diagnosis.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only where an event loop is running
    return deployment


def serve_schedule(experiment: Experiment, out: Path, when: Schedule, *, yes: bool = False) -> None:
    """Serve the deployment until interrupted.

    The schedule stays on in the server when this process ends: runs that came due meanwhile are late, and are made, one
    after another, by the next process that serves it. Prefect's own way is to switch it off, without a word.

    Raises:
        UserError: no Prefect server answers at `PREFECT_API_URL`, or at its default on this machine, or it went away.
        KeyboardInterrupt, Terminated: as of `serve_deployment`.
    """
    server = _server()
    for name, place in {"RADAUG_DATA": data_root(), "RADAUG_CACHE": os.environ.get("RADAUG_CACHE")}.items():
        if place:
            os.environ[name] = str(Path(place).resolve())
    try:
        with temporary_settings(updates={PREFECT_API_URL: server}):
            serve_deployment(build_deployment(experiment, out, when, yes=yes))
    except Exception:
        if server_answers(server):
            raise
        raise UserError(
            f"{server}: the Prefect server went away. Start it and run the same command again: the schedule is kept, "
            "and what came due meanwhile is made then."
        ) from None


def register_schedule(experiment: Experiment, out: Path, when: Schedule, pool: str, *, yes: bool = False) -> None:
    """Leave the deployment in the server, whose `pool` has workers that make its runs.

    A worker's own machine decides what `RADAUG_DATA` and `RADAUG_CACHE`, cores and GPUs are; `out` is the same there.

    Raises:
        UserError: no Prefect server answers, or it has no such pool.
    """
    with temporary_settings(updates={PREFECT_API_URL: _server()}):
        _require_pool(pool)
        build_deployment(experiment, out, when, yes=yes).apply(work_pool_name=pool)


def _require_pool(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(name).type
        except ObjectNotFound:
            kind = ""
    if kind != "process":
        why = f"is of type {kind}" if kind else "is not there"
        raise UserError(
            f"--pool {name}: {why}. Make one with `prefect work-pool create {name} --type process`, and start "
            f"`prefect worker start --pool {name}` where its runs are to be made."
        )


def _server() -> str:
    server = os.environ.get("PREFECT_API_URL") or DEFAULT_SERVER
    require_server(server)
    return server


def require_server(url: str) -> None:
    """Check that a Prefect server answers at `url`.

    Raises:
        UserError: none does; the message says how to start one.
    """
    if not server_answers(url):
        raise UserError(
            f"{url}: no Prefect server answers. Start one in another terminal with `prefect server start`, "
            "or set PREFECT_API_URL to the one you have."
        )
