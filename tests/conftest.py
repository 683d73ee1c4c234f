"""What all tests share: Prefect in a temporary home, data packs, a tiny prepared data set, tests left out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flows  # noqa: F401  (sets Prefect's environment, before anything imports prefect)

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
"""Before numpy and torch load: the processes of `pytest -n auto` share the cores, one thread each."""
_PREFECT_HOME = tempfile.mkdtemp(prefix="radaug-prefect-")
os.environ["PREFECT_HOME"] = _PREFECT_HOME


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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
def server(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the session's server, so that a run starts none of its own."""
    from prefect.settings import get_current_settings

    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))


@pytest.fixture(scope="session")
def data_packs() -> Path:
    """The folder of real test data: `RADAUG_DATA`, or `../shared/data` beside the repository."""
    place = Path(os.environ.get("RADAUG_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (place / "README.md").is_file():
        pytest.skip("no data packs: set RADAUG_DATA to their folder")
    return place


@pytest.fixture
def noise_inputs(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Makes a prepared data set of noise with one bright class, and a split with half of it for training."""

    def make(shape: tuple[int, ...] = (12, 12), num: int = 24) -> dict[str, Path]:
        return _write_noise(tmp_path / "inputs", shape, num)

    return make


def _write_noise(root: Path, shape: tuple[int, ...], num: int) -> dict[str, Path]:
    import numpy as np
    import pandas as pd

    from pipeline.core.records import Record

    prepare, split = root / "prepare", root / "split"
    prepare.mkdir(parents=True)
    split.mkdir()
    random = np.random.default_rng(0)
    label = np.arange(num) % 2
    images = random.integers(0, 120, (num, 1, *shape)) + 100 * label.reshape(-1, *[1] * (len(shape) + 1))
    np.save(prepare / "images.npy", images.astype(np.uint8))
    ids = [f"image-{number}" for number in range(num)]
    names = np.array(["normal", "disease"])[label]
    table = pd.DataFrame({"image_id": ids, "label": names, "patient_id": [f"p{i}" for i in range(num)]})
    table.to_csv(prepare / "manifest.csv", index=False)
    scaling = {"scale": 1.0, "offset": 0.0, "unit": "none", "window": [0.0, 255.0], "dtype": "uint8"}
    Record(kind="prepare", extra={"scaling": scaling}).save(prepare)
    parts = ["train"] * (num // 2) + ["val"] * (num // 4) + ["test"] * (num - num // 2 - num // 4)
    table.assign(split=parts, fold="0", fate="used", pixel_digest=ids).to_csv(split / "manifest.csv", index=False)
    pd.DataFrame({"fold": "0", "image_id": ids, "split": parts}).to_csv(split / "splits.csv", index=False)
    return {"prepare": prepare, "split": split}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that relative paths of data start at."""
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    return tmp_path
