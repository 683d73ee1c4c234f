"""A schedule: the flow as a Prefect deployment, served from this process against a local Prefect server."""

from __future__ import annotations

import os
from pathlib import Path

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from tzlocal import get_localzone_name

from flows.flow import experiment_flow
from flows.server import server_answers
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


def build_deployment(experiment: Experiment, out: Path, when: Schedule) -> RunnerDeployment:
    """The deployment named by the experiment, which runs it into `out`, one run at a time."""
    deployment = experiment_flow.to_deployment(
        name=experiment.name,
        schedule=when,
        parameters={"experiment": experiment.model_dump(mode="json"), "out": str(out.resolve())},
        tags=["radaug", experiment.gan.family],
        description="GAN augmentation of a CT or X-ray data set, judged with evidence. Not for diagnosis.",
        concurrency_limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # a coroutine only where an event loop is running
    return deployment


def serve_schedule(experiment: Experiment, out: Path, when: Schedule) -> None:
    """Serve the deployment until interrupted.

    The schedule stays on in the server when this process ends: runs that came due meanwhile are late, and are made, one
    after another, by the next process that serves it. Prefect's own way is to switch it off, without a word.

    Raises:
        UserError: no Prefect server answers at `PREFECT_API_URL`, or at its default on this machine.
    """
    server = os.environ.get("PREFECT_API_URL") or DEFAULT_SERVER
    require_server(server)
    for name, place in {"RADAUG_DATA": data_root(), "RADAUG_CACHE": os.environ.get("RADAUG_CACHE")}.items():
        if place:
            os.environ[name] = str(Path(place).resolve())
    with temporary_settings(updates={PREFECT_API_URL: server}):
        serve(build_deployment(experiment, out, when), pause_on_shutdown=False, limit=1)


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
