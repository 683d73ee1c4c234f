"""Jobs on the workers of Dask and Ray: equal results, at most so many at once, and what is missing is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from graph_stages import step
from own_server import started
from prefect import flow
from tiny_run import TINY

import flows.spread
from flows.children import Work
from flows.cli import launch
from flows.flow import run_job
from flows.ledger import settings_of
from flows.needs import needs_of
from flows.plan import Step, plan_experiment
from flows.server import free_port
from flows.shares import Machine, machine_of
from flows.spread import sending
from pipeline.config.experiment import ComputeConfig, Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import Execution
from pipeline.core.errors import ConfigError, DataError, Killed, RadaugError
from pipeline.core.files import digest_file
from pipeline.core.layout import METRICS_FILE, PREDICTIONS, STAGES
from pipeline.core.records import load_record

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
CLUSTER = ["compute.engine=dask", "compute.cluster=tcp://scheduler:8786"]
MACHINE = Machine(2, 2, 2, 1e6)


def demo(*overrides: str) -> Experiment:
    return load_experiment(DEMO, ["compute.device=cpu", *overrides])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["dask", "ray", "cluster"])
def test_a_run_on_workers_leaves_what_one_on_this_machine_leaves(where: str, tmp_path: Path) -> None:
    """Workers of the run's own, and a cluster of Dask that was there before."""
    engine = "dask" if where == "cluster" else where
    pytest.importorskip(f"prefect_{engine}", reason=f"it is not installed: pip install 'radaug[{engine}]'")
    with dask_cluster(tmp_path) if where == "cluster" else nullcontext("") as address:
        here = run_of(tmp_path / "here" / "run", "--engine", "direct")  # and a cache beside it
        there = [f"compute.engine={engine}", *([f"compute.cluster={address}"] if address else [])]
        assert run_of(tmp_path / "there" / "run", *(token for one in there for token in ("--set", one))) == here
    assert len(here) > 15


def run_of(out: Path, *more: str) -> dict[str, str]:
    """Digests of all that a run leaves."""
    changes = [token for one in [*TINY, "compute.workers=2", "compute.threads=1"] for token in ("--set", one)]
    command = [sys.executable, "-m", "flows.cli", "run", str(DEMO), "--out", str(out), *changes, *more]
    subprocess.run(command, check=True)
    digests = {path.name: load_record(path).digest for path in (out / STAGES).iterdir()}
    return digests | {name: digest_file(out / name) for name in (METRICS_FILE, PREDICTIONS)}


@contextmanager
def dask_cluster(at: Path) -> Iterator[str]:
    """A scheduler and two workers, as the docs start them."""
    address = f"tcp://127.0.0.1:{free_port()}"
    dask, children = str(Path(sys.executable).parent / "dask"), []
    environment = os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    worker = [dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
    scheduler = [dask, "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"]
    try:
        children += [started(command, environment, at) for command in (scheduler, worker, worker)]
        yield address
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGINT)
            child.wait(timeout=60)


@pytest.mark.slow
def test_a_job_on_a_worker_of_dask_leaves_the_bytes_of_one_made_here(prefect_server: None, tmp_path: Path) -> None:
    """And a refusal comes back as it is. A whole run is made so with `--slow`."""
    pytest.importorskip("prefect_dask", reason="it is not installed: pip install 'radaug[dask]'")
    ingest = plan_experiment(demo("data.spatial_size=16"))[0]

    def work(step: Step, cache: str) -> Work:
        return Work(step, "", {}, tmp_path / cache, tmp_path / "error.log", 1)

    @flow
    def spread() -> tuple[Execution | None, BaseException | None]:
        with sending(run_job, ComputeConfig(engine="dask", workers=1), Machine(1, 1, 1, 1e6)) as send:
            return send(work(ingest, "there")).result(), send(work(step("a", what="fail"), "there")).exception()

    made, refused = spread()
    here = work(ingest, "here").do()
    assert made is not None and here is not None and made.directory.parent == tmp_path / "there"
    assert made.record.digest == here.record.digest
    assert isinstance(refused, DataError) and str(refused) == "labels.csv: a label is missing."


class Runner:
    """Prefect's task runner: a task ends as `outcome` says."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, job: Any, parameters: dict[str, Any]) -> Any:
        def result() -> Any:
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return parameters["work"].name + self.outcome

        return SimpleNamespace(result=result)


def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: object) -> Future[Any]:
    monkeypatch.setattr(flows.spread, "find_spec", lambda name: name)
    monkeypatch.setattr(flows.spread, "_ray", lambda cluster, workers: Runner(outcome))
    work = Work(step("a"), "", {}, tmp_path, tmp_path / "error.log", 1)
    with sending(None, ComputeConfig(engine="ray"), MACHINE) as send:  # type: ignore[arg-type]
        future = send(work)
        future.exception(timeout=30)
    return future


def test_outcomes_and_errors_come_back_and_a_lost_worker_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert sent(monkeypatch, tmp_path, "!").result() == "a!"
    with pytest.raises(DataError, match="a label is missing"):
        sent(monkeypatch, tmp_path, DataError("a label is missing")).result()
    with pytest.raises(Killed, match=r"^a: its worker was lost \(OSError\)\. Run the same command again") as caught:
        sent(monkeypatch, tmp_path, OSError("patient-77")).result()
    assert "patient-77" not in str(caught.value)


def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.spread, "find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'radaug\[dask\]'"),
        sending(
            None,
            ComputeConfig(engine="dask"),
            MACHINE,  # type: ignore[arg-type]
        ),
    ):
        pass


def test_a_cluster_gets_so_many_jobs_at_once_and_never_more_than_64() -> None:
    assert machine_of(demo(*CLUSTER, "compute.workers=8", "compute.threads=4").compute).workers == 8
    large = machine_of(demo(*CLUSTER, "compute.workers=500").compute)
    assert (large.workers, large.cores, large.threads, large.gpus) == (64, 64, 1, ())
    assert machine_of(demo("compute.engine=ray", "compute.workers=500").compute).workers == 64
    with pytest.raises(ConfigError, match="cluster needs engine"):
        demo(*CLUSTER)


def test_where_jobs_run_is_no_other_experiment_and_a_clusters_memory_is_not_ours() -> None:
    there, here = demo(*CLUSTER, "compute.workers=8"), demo()
    assert settings_of(there) == settings_of(here)
    assert needs_of(plan_experiment(there), there, 100).memory_mib == 0
    assert needs_of(plan_experiment(here), here, 100).memory_mib > 0


def test_direct_runs_stay_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(DEMO), "--engine", "direct", "--out", str(tmp_path / "r"), "--set", "compute.engine=dask"]
    assert launch(command) == 2
    assert "compute.engine: dask needs a Prefect server" in capsys.readouterr().err
    assert issubclass(ConfigError, RadaugError) and not (tmp_path / "r" / STAGES).exists()
