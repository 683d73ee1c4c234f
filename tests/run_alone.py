"""Runs every stage of CONFIG in a process that has imported nothing of the program: which modules does it import?

    python run_alone.py CONFIG FOLDER key=value ...

Leaves FOLDER/imported.pickle: step -> modules of `pipeline` that were imported while it ran. Each stage runs in a fork
of this process, which has the libraries in memory and none of the program.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import monai.networks.layers  # noqa: F401
import pandas  # noqa: F401
import sklearn.svm  # noqa: F401
import statsmodels.api  # noqa: F401
import torch
import torch._dynamo  # what the first optimiser of a process imports, for seconds


def apart(work: Callable[[], None]) -> None:
    """Run `work` in a fork."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("a stage failed")


def plan(config: str, folder: Path, changes: list[str]) -> None:
    from flows.plan import plan_experiment
    from pipeline.config.loading import load_experiment

    steps = plan_experiment(load_experiment(Path(config), changes))
    stages = [(step, step.make()) for step in steps]
    plain = [(step.name, dict(step.needs), pickle.dumps((made.run, made.config))) for step, made in stages]
    (folder / "steps.pickle").write_bytes(pickle.dumps(plain))


def run(place: Path, needs: dict[str, str], pickled: bytes) -> None:
    assert not any(name.partition(".")[0] == "pipeline" for name in sys.modules)
    function, config = pickle.loads(pickled)
    place.mkdir()
    function(config, {name: place.parent / step for name, step in needs.items()}, place).save(place)
    imported = {name for name in sys.modules if name.partition(".")[0] == "pipeline"}
    (place.parent / f"{place.name}.pickle").write_bytes(pickle.dumps(imported))


def main() -> None:
    config, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    apart(lambda: plan(config, folder, sys.argv[3:]))
    imported = {}
    for name, needs, pickled in pickle.loads((folder / "steps.pickle").read_bytes()):
        apart(lambda place=folder / name, rest=(needs, pickled): run(place, *rest))
        imported[name] = pickle.loads((folder / f"{name}.pickle").read_bytes())
    (folder / "imported.pickle").write_bytes(pickle.dumps(imported))


if __name__ == "__main__":
    main()
