"""radaug from Python: the same numbers and errors as the command line, from the same files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import Case, build
from test_released import LEVELS, finished

import pipeline as radaug
import pipeline.face
from pipeline.core.errors import ConfigError, RefusedError, UserError

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"


def test_a_configuration_is_loaded_and_what_is_wrong_is_said() -> None:
    assert radaug.load(DEMO, ["gan.num_images=64"]).gan.num_images == 64
    with pytest.raises(ConfigError, match="Did you mean num_images"):
        radaug.load(DEMO, ["gan.num_imges=64"])


def test_an_open_run_is_its_files(tmp_path: Path) -> None:
    place = build(tmp_path / "run", Case())
    opened = radaug.open_run(place)
    assert isinstance(opened, radaug.OpenRun) and opened.experiment.name
    assert set(opened.verdict) >= {"utility", "release"}
    assert len(opened.predictions) == len(pd.read_csv(place / "predictions.csv"))
    assert len(opened.metrics) == len(pd.read_csv(place / "metrics.csv"))
    assert list(opened.manifest["image_id"]) == list(pd.read_csv(place / "manifest.csv", dtype=str)["image_id"])
    with pytest.raises(UserError, match="no such run directory"):
        radaug.open_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no synthetic images of fold 9"):
        opened.synthetic(9)


def test_samples_are_those_of_the_command(noise_inputs: Callable[..., dict[str, Path]], tmp_path: Path) -> None:
    place = finished(tmp_path, noise_inputs((16, 16)), (0, 1))
    images = radaug.sample(place, "disease", 2)
    assert images.shape == (2, 16, 16) and np.abs(images - LEVELS[0, 1]).max() <= 1
    with pytest.raises(UserError, match="did you mean disease"):
        radaug.sample(place, "diseases", 1)


def test_a_verdict_on_anyones_predictions_is_that_of_the_command(tmp_path: Path) -> None:
    rows = []
    for arm, gan_seed, gain in (("real+classical", "", 0.0), ("real+classical+synthetic@1", "0", 0.1)):
        random = np.random.default_rng(0)
        for split in ("val", "test"):
            for number in range(30):
                score = float(np.clip(0.4 * (number % 2) + gain * (number % 2) + 0.5 * random.random(), 0, 1))
                name, label = f"{split}{number}", ("normal", "ill")[number % 2]
                rows.append((arm, "0", "0", gan_seed, split, name, name, label, 1 - score, score))
    columns = [
        "arm",
        "fold",
        "seed",
        "gan_seed",
        "split",
        "image_id",
        "patient_id",
        "label",
        "score_normal",
        "score_ill",
    ]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "p.csv", index=False)
    by_table, by_file = radaug.decide(table), radaug.decide(tmp_path / "p.csv")
    assert by_table["decision"] == by_file["decision"] and by_table["reasons"] == by_file["reasons"]


@pytest.mark.parametrize(("code", "error"), [(2, UserError), (3, RefusedError)])
def test_a_run_that_ends_badly_raises_its_own_message(
    code: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command is replaced by one that says so: what a run does is tested elsewhere."""
    said: list[list[str]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        said.append(command)
        ends = f"import sys; print('radaug: the mend.', file=sys.stderr); sys.exit({code})"
        return real([sys.executable, "-c", ends], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(pipeline.face.subprocess, "Popen", popen)
    with pytest.raises(error, match=r"^the mend\.$"):
        radaug.run(radaug.load(DEMO), tmp_path / "out")
    assert said[0][1:4] == ["-m", "flows.cli", "run"] and str(tmp_path / "out") in said[0]


def test_the_package_loads_nothing_by_itself() -> None:
    code = (
        "import pipeline, sys; print(sorted({'pandas', 'torch', 'pydantic'} & set(sys.modules)), pipeline.__all__[4])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[] run"
