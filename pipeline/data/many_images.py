"""The same work on every image of a cohort: with all the threads that the stage has, where that is worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.core.progress import Progress
from pipeline.core.workers import side_by_side
from pipeline.data.readers.folders import files_below

Item = TypeVar("Item")
Result = TypeVar("Result")
WORTH_BYTES = 800_000_000
"""From so much on processes of their own are quicker than none. Two cost 2.3 s to start, and a MB takes 10 ms to read
and prepare (AMD EPYC): they break even at 500 MB, and take three quarters of the time at 800."""
_IMAGE_BYTES = 100_000
"""So much longer a file takes, whatever its size."""


@contextmanager
def on_every_image(
    stage: str, work: Callable[[Item], Result], items: Sequence[Item], paths: Sequence[Path]
) -> Iterator[Iterator[Result]]:
    """Give `work(item)` of each item, in order; `paths` are the files, or folders, that the items are read from.

    Raises (as the results are taken):
        Killed: a process ended before its work did.
        Exception: what `work` raises, for the first item in order of which it does.
    """
    processes = min(torch.get_num_threads(), len(items)) if worth_processes(paths) else 1
    with side_by_side(work, items, processes=processes, name_of=lambda number: paths[number].name) as results:
        yield _counted(results, Progress(stage, len(items), "images"))


def worth_processes(paths: Sequence[Path]) -> bool:
    """Whether reading takes long enough. Images of one npz file do not count: it is unpacked whole by who reads it."""
    total = 0
    for path in paths:
        files = files_below(path) if path.is_dir() else [path] if path.is_file() else []
        total += sum(file.stat().st_size + _IMAGE_BYTES for file in files)
        if total >= WORTH_BYTES:
            return True
    return False


def _counted(results: Iterator[Result], progress: Progress) -> Iterator[Result]:
    for number, result in enumerate(results, start=1):
        progress.update(number)
        yield result
