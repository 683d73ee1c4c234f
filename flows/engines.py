"""Where a run's jobs are started from: threads of this process, or tasks of a Prefect flow. Each job is a child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from flows.children import Work, end_children, in_child
from flows.graph import Start
from flows.shares import Machine
from pipeline.core.cache import Execution

Engine = Callable[[Machine], AbstractContextManager[Start]]
"""Opens what jobs of a machine are started with, and leaves no child behind when it is closed."""


def carry_out(work: Work, found: Execution | None) -> Execution | None:
    """The outcome of `work`: as it was found, else as a child makes it.

    Raises:
        RadaugError: as of `in_child`.
    """
    return found if found is not None else in_child(work)


@contextmanager
def no_child_left_behind() -> Iterator[None]:
    """End all children where the block is left by an error, Ctrl-C or SIGTERM."""
    try:
        yield
    except BaseException:
        end_children()
        raise


@contextmanager
def direct_engine(machine: Machine) -> Iterator[Start]:
    """Jobs are followed by threads of this process; there is no server."""
    with ThreadPoolExecutor(machine.workers + 1, "job") as pool, no_child_left_behind():

        def start(work: Work, found: Execution | None) -> Future[Execution | None]:
            return pool.submit(carry_out, work, found)

        yield start
