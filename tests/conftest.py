"""What all tests share: Prefect in a temporary home, data packs, a tiny prepared data set, tests left out."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import flows  # noqa: F401  (sets Prefect's environment, before anything imports prefect)

if TYPE_CHECKING:
    from fake_stages import FakeStages

    from pipeline.config.experiment import Experiment

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
"""Before numpy and torch load: the processes of `pytest -n auto` share the cores, one thread each."""
signal.signal(signal.SIGINT, signal.default_int_handler)
"""What a script puts in the background ignores it, with all that it starts; tests send it."""
_PREFECT_HOME = tempfile.mkdtemp(prefix="radaug-prefect-")
os.environ["PREFECT_HOME"] = _PREFECT_HOME


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_xdist_auto_num_workers() -> int:
    """Processes of `-n auto`: one to a core that this one may use, each with 2 GiB; at most 8, since all collect."""
    from pipeline.core.threads import available_cores, available_memory_mib

    return max(1, min(available_cores(), int(available_memory_mib() // 2048), 8))


LONGEST = ("test_low_data_curve", "test_end_to_end", "test_code_reach", "test_graph")
"""Files of whole runs. They come first: what is left at the end is short, and is shared among the processes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU; torch finds none"))


def pytest_unconfigure() -> None:
    shutil.rmtree(_PREFECT_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Nets that a test builds begin with the same weights, whatever ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One local Prefect server with a temporary database for the whole session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    """Fakes that the flow takes for the real stages."""
    from fake_stages import put_in_place

    return put_in_place(monkeypatch)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Of simulated lesions, as a flow of `stages` takes it."""
    from fake_stages import make_experiment

    return make_experiment(tmp_path)


@pytest.fixture
def server(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the session's server, so that a run starts none of its own."""
    from prefect.settings import get_current_settings

    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))


@pytest.fixture(scope="session")
def ready_children() -> None:
    """Children are forked from a server with all libraries, whichever server an earlier test has started."""
    from multiprocessing import forkserver

    from flows.children import warm_up

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    warm_up()


@pytest.fixture(scope="session")
def data_packs() -> Path:
    """The folder of real test data: `RADAUG_DATA`, or `../shared/data` beside the repository."""
    place = Path(os.environ.get("RADAUG_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (place / "README.md").is_file():
        pytest.skip("no data packs: set RADAUG_DATA to their folder")
    return place


@pytest.fixture
def noise_inputs(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Makes the data set of `noise_data`."""

    from noise_data import write_noise

    def make(shape: tuple[int, ...] = (12, 12), num: int = 24) -> dict[str, Path]:
        return write_noise(tmp_path / "inputs", shape, num)

    return make


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that relative paths of data start at."""
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    return tmp_path
