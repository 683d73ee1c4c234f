"""The same work on many items side by side, in processes that never outlive it; results come in the items' order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pipeline.core.errors import Killed
from pipeline.core.processes import ready_context
from pipeline.core.threads import use_threads

Item = TypeVar("Item")
Result = TypeVar("Result")
_CHUNK = 16
_work: Callable[[Any], Any] | None = None


@contextmanager
def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], *, processes: int, name_of: Callable[[int], str]
) -> Iterator[Iterator[Result]]:
    """Give `work(item)` of each item, in order, made by `processes` others of one thread each; by this one if it is 1.

    The other processes end with the block, however it ends, and with this process. A module's top level runs in each
    of them again, so a script that comes here needs `if __name__ == "__main__"`.

    Args:
        work: picklable; each process gets a copy of its own, once. Results are picklable too.
        name_of: what the item of a number is called in the error.

    Raises (as the results are taken):
        Killed: a process ended before its work did.
        Exception: what `work` raises, for the first item in order of which it does.
    """
    if processes == 1 or multiprocessing.current_process().daemon:  # a daemon may have no children
        yield map(work, items)
        return
    context = ready_context(__name__, type(work).__module__)  # what `work` needs
    ends_with_us, lifeline = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(processes, context, _begin, (work, ends_with_us))
    chunk = max(1, min(_CHUNK, len(items) // (4 * processes)))
    try:
        yield _named(executor.map(_do, items, chunksize=chunk), name_of)
    except BaseException:
        lifeline.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        lifeline.close()
        ends_with_us.close()


def _named(results: Iterator[Result], name_of: Callable[[int], str]) -> Iterator[Result]:
    done = 0
    try:
        for result in results:
            done += 1
            yield result
    except BrokenProcessPool:
        raise Killed(
            f"{name_of(done)}: the process that worked on this, or on one of the next, was ended, most often "
            "because memory ran out. Ask for more memory, or set compute.threads: 1, so that one works at a time."
        ) from None


def _begin(work: Callable[[Any], Any], ends_with_parent: Connection) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, whose end is ours
    threading.Thread(target=_end_with, args=(ends_with_parent,), daemon=True).start()
    use_threads(1)


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv_bytes()  # nothing is ever sent: it returns when the other end is closed
    os._exit(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)
