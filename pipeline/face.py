"""radaug from Python: thin over the same stages and files as the command line, which docs/notebook.md shows at work.

Everything is asked for as `pipeline.NAME` (`import pipeline as radaug`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.config.experiment import Experiment
from pipeline.config.loading import dump_experiment, load_experiment, require_data
from pipeline.core.errors import RadaugError, RefusedError, UserError
from pipeline.core.layout import CONFIG, FIGURES, STAGES, SYNTHETIC, gan_name
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.report.reading import read_run


@dataclass(frozen=True)
class OpenRun:
    """A finished run. It is as confidential as its source.

    Attributes:
        verdict: `utility` and `release`, each with decision, reasons and evidence.
        metrics, predictions, manifest: tables whose columns docs/files.md names; ids and labels are text.
        figures: the report's pictures by name.
    """

    root: Path
    experiment: Experiment
    verdict: Mapping[str, Any]
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    manifest: pd.DataFrame
    figures: Mapping[str, Path]

    def real(self) -> DataSet:
        """The prepared images [N, C, *spatial] (`images`, memory-mapped) and their rows (`manifest`)."""
        return open_dataset(self.root / STAGES / "prepare")

    def synthetic(self, fold: int = 0, gan_seed: int = 0) -> DataSet:
        """The same of one generator.

        Raises:
            UserError: the run has no such generator.
        """
        place = self.root / SYNTHETIC / gan_name(fold, gan_seed)
        if not place.is_dir():
            raise UserError(f"{self.root}: has no synthetic images of fold {fold}, GAN seed {gan_seed}.")
        return open_dataset(place)


def load(config: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check a configuration, with `overrides` such as `gan.num_images=64`; its data must be there.

    Raises:
        ConfigError: a key, a value or a path is wrong; the message says which and what would be right.
    """
    experiment = load_experiment(Path(config), overrides)
    require_data(experiment, Path(config))
    return experiment


def run(
    config: Experiment | Path | str, out: Path | str | None = None, *, engine: Literal["direct", "prefect"] = "direct"
) -> OpenRun:
    """Run an experiment as `radaug run` does, print what it says, and open what it left.

    It is a process of its own: interrupt the call, and the run ends in order; call again, and it goes on.

    Args:
        out: the run directory; runs/NAME unless given.

    Raises:
        UserError, RefusedError, RadaugError: as the run ended; the message is its own.
    """
    experiment = config if isinstance(config, Experiment) else load(config)
    place = Path(out) if out is not None else Path("runs") / experiment.name
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / CONFIG
        written.write_text(dump_experiment(experiment), encoding="utf-8")
        words = ["run", str(written), "--out", str(place), "--engine", engine]
        code, last = _said([sys.executable, "-m", "flows.cli", *words])
    if code:
        error = {2: UserError, 3: RefusedError}.get(code, RadaugError)
        raise error(last.removeprefix("radaug: ") or f"the run ended with {code}")
    return open_run(place)


def open_run(run_dir: Path | str) -> OpenRun:
    """Open a finished run.

    Raises:
        UserError: a file is missing or lacks a column; the message names it.
    """
    found = read_run(Path(run_dir))
    figures = {path.stem: path for path in sorted((found.root / FIGURES).glob("*.png"))}
    return OpenRun(
        found.root, found.experiment, {**found.verdict}, found.metrics, found.predictions, found.manifest, figures
    )


def sample(
    run_dir: Path | str, label: str, num: int, *, seed: int = 0, truncation_psi: float = 1.0
) -> NDArray[np.float32]:
    """Images [num, *spatial] of class `label` from the generator that the run's `release:` names; CT in HU.

    The first `num` images of `radaug sample` with this seed. They are not released by being made.

    Raises:
        UserError: the run has not this generator, or the class is unknown.
    """
    from pipeline.synthesis.generate import TrainedGenerator
    from pipeline.synthesis.sample import drawn, released_generator

    checkpoint, inputs = released_generator(Path(run_dir))
    generator = TrainedGenerator(checkpoint, inputs)
    return np.stack([image for _, image in drawn(checkpoint, generator, label, num, seed, truncation_psi)])


def score(run_dir: Path | str, given: Path | str, *, detector: str = "", rate: float | None = None) -> pd.DataFrame:
    """path, score, p_value, alarm, detector and shift of new images, by a detector that the run fitted.

    Args:
        given: an image, a series, a folder, or a table with a column path.

    Raises:
        UserError: the run has not this detector.
    """
    from pipeline.anomaly.scoring import SCORES, score_run

    with tempfile.TemporaryDirectory() as folder:
        score_run(Path(run_dir), Path(given), Path(folder), detector, rate=rate)
        return pd.read_csv(Path(folder) / SCORES, dtype={"path": str})


def decide(predictions: pd.DataFrame | Path | str, plan: Experiment | None = None) -> dict[str, Any]:
    """The utility verdict on anyone's predictions in the form of predictions.csv: decision, reasons, evidence.

    Args:
        plan: whose verdict section, disease side and seed apply; with a run's own the bounds are the run's.

    Raises:
        DataError, LeakageError: columns are missing, or a patient is trained on and tested.
    """
    from pipeline.verdict.decide import read_predictions
    from pipeline.verdict.lone import judge_alone

    table = predictions if isinstance(predictions, pd.DataFrame) else read_predictions(Path(predictions))
    return dict(judge_alone(table, plan).as_json())


def _said(command: Sequence[str]) -> tuple[int, str]:
    """Run a command and print what it prints, line by line; gives its exit code and its last line."""
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.rstrip() or last
                print(line, end="")
        except KeyboardInterrupt:
            process.terminate()
            raise
    return process.returncode, last
