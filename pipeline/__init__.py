"""radaug: GAN augmentation of CT and X-ray data sets, judged with evidence. Not for diagnosis.

In a notebook, with `import pipeline as radaug`: `load` a configuration, `run` it, `open_run` what it left, `sample`,
`score`, `decide`. docs/notebook.md shows them; `pipeline.face` holds them, and is loaded when one is asked for.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.face import OpenRun, decide, load, open_run, run, sample, score

__all__ = ["OpenRun", "decide", "load", "open_run", "run", "sample", "score"]

# Threads that wait for each other sleep instead of spinning: spinning ones take the cores of whoever works beside them,
# and of their own process's other threads. OpenMP libraries read this once, when they load. The user's values stay.
for _name, _value in {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> object:
    """The face by its name: an import here would be one of every stage, and whatever changed would make all stale."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module("pipeline.face"), name)
