"""Jobs on other engines: the workers of Dask or Ray, through Prefect's task runners."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from prefect import Task
from prefect.task_runners import TaskRunner

from flows.children import MEND, Work
from flows.shares import Machine
from pipeline.config.experiment import ComputeConfig
from pipeline.core.cache import Execution
from pipeline.core.errors import ConfigError, Killed, RadaugError

Send = Callable[[Work], Future[Execution | None]]
_STORE_BYTES = 100 * 2**20
"""Of Ray's object store: records pass through it, never arrays."""


@contextmanager
def sending(job: Task[..., Any], compute: ComputeConfig, machine: Machine) -> Iterator[Send]:
    """Gives what sends a piece of work to a worker as the task `job`; the graph has waited for all that it needs.

    Without `compute.cluster` the workers are processes of this machine and end with the block. Those of a cluster end
    the jobs that they have begun.

    Raises:
        ConfigError: the engine is not installed, or no cluster answers at `compute.cluster`.
    """
    if find_spec(f"prefect_{compute.engine}") is None:
        raise ConfigError(
            f"compute.engine: {compute.engine} is not installed here. Install it with "
            f"`pip install 'radaug[{compute.engine}]'`, or leave the line out."
        )
    with _started(compute, machine) as runner:

        def send(work: Work) -> Future[Execution | None]:
            outcome: Future[Execution | None] = Future()
            sent = runner.submit(job, {"work": work, "found": None})
            threading.Thread(target=_follow, args=(sent, work.name, outcome), daemon=True).start()
            return outcome

        yield send


@contextmanager
def _started(compute: ComputeConfig, machine: Machine) -> Iterator[TaskRunner[Any]]:
    runner = {"dask": _dask, "ray": _ray}[compute.engine](compute.cluster, machine.workers)
    ours = signal.getsignal(signal.SIGTERM)
    with runner:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # Ray's own handler aborts
        if compute.engine == "dask":
            try:
                runner.client  # noqa: B018  (connects)
            except OSError as error:
                raise ConfigError(
                    f"compute.cluster: no Dask scheduler answers at {compute.cluster}. Start one with "
                    "`dask scheduler`, and `dask worker ADDRESS --no-nanny --nthreads 1` for each job at once."
                ) from error
        yield runner


def _dask(cluster: str, workers: int) -> Any:
    import dask
    from prefect_dask import DaskTaskRunner

    if cluster:
        return DaskTaskRunner(address=cluster)
    dask.config.set({"distributed.worker.daemon": False})  # else workers may not have children
    own = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=own)


def _ray(cluster: str, workers: int) -> Any:
    from prefect_ray import RayTaskRunner

    if cluster:
        return RayTaskRunner(address=cluster)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own workers give way to all others, 15 steps below them
    own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    return RayTaskRunner(init_kwargs=own)


def _follow(sent: Any, name: str, outcome: Future[Execution | None]) -> None:
    try:
        outcome.set_result(sent.result())
    except RadaugError as error:
        outcome.set_exception(error)
    except Exception as error:
        outcome.set_exception(Killed(f"{name}: its worker was lost ({type(error).__name__}). {MEND}"))
